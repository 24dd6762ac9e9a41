"""Tries the scheduled task of the documentation under wine: `task.py WORK LINUX WINDOWS TASK.xml`.

Wine registers the task and reads its settings, but neither triggers nor starts it. The command of the task is therefore started here, as the Task
Scheduler would: with the program, settings and secret where the documentation puts them, in the task's folder, and without credentials in its
environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from school import WINE, free_port, serve

NAMESPACE = {"task": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
NAME = "daplake"


def unix(path):
    """A path on drive C of wine."""
    return Path(os.environ["WINEPREFIX"], "drive_c", *path.replace("\\", "/").split("/")[1:])


def text(element, name):
    return element.find(f".//task:{name}", NAMESPACE).text


def wine(*command, **options):
    return subprocess.run([WINE, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def main():
    work, linux, windows, file = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]).resolve()
    task = ElementTree.parse(file).getroot()

    created = wine("schtasks", "/Create", "/TN", NAME, "/XML", file.name, "/RU", "SYSTEM", cwd=file.parent)
    stored = unix("C:\\windows\\system32\\tasks") / NAME
    if created.returncode != 0 or not stored.exists():
        raise SystemExit(f"wine does not register the task: {created.stdout.decode()}")
    found = ElementTree.parse(stored).getroot()
    for name in ("MultipleInstancesPolicy", "StartWhenAvailable", "RunOnlyIfNetworkAvailable", "ExecutionTimeLimit", "Description"):
        if text(found, name) != text(task, name):
            raise SystemExit(f"wine reads another value of {name}: {text(found, name)}")
    wine("schtasks", "/Delete", "/TN", NAME, "/F")

    program, folder = unix(text(task, "Command")), unix(text(task, "WorkingDirectory"))
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(windows, program)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open(work / "task.txt", "wb") as log:
        server, account = serve(linux, free_port(), 1, log)
        try:
            (folder / "secret.txt").write_text(account["DAP_CLIENT_SECRET"] + "\r\n")
            (folder / "daplake.toml").write_text(
                f"""[service]
url = "{account["DAP_API_URL"]}"
client_id = "{account["DAP_CLIENT_ID"]}"
client_secret = "file:C:/ProgramData/daplake/secret.txt"

[targets.lake]
url = "C:/ProgramData/daplake/lake"
tables = ["canvas.users", "canvas.courses"]
"""
            )
            environment = {name: value for name, value in os.environ.items() if not name.startswith("DAP")}
            ended = wine(text(task, "Command"), *text(task, "Arguments").split(), cwd=folder, env=environment)
        finally:
            server.terminate()
            server.wait()
    log = folder / "daplake.log"
    written = log.read_text(errors="replace") if log.exists() else ""
    if ended.returncode != 0 or "loaded: 2" not in written or not (folder / "lake/canvas/users/_delta_log").is_dir():
        raise SystemExit(f"the command of the task ended with {ended.returncode}: {ended.stdout.decode()}{written}")
    print("ok: scheduled task (registered; its command run)")


main()
