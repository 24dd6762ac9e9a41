"""The embedded server, and free ports for other servers."""

import os
import shlex
import socket
import subprocess
import time

from .programs import CACHE

OBJECTS = str(CACHE / "objects")


class EmbeddedServer:
    """`daplake serve` with this number of rows of submissions (web_logs has five times as many) and of commits. A context manager.

    `environment` has the variables that a client needs. Objects are encoded once and kept in the cache folder, so the first query of a
    result is slower than later ones: benchmarks run it once before they measure.
    """

    def __init__(self, program, rows, commits=1, change_rate=None, start="2026-01-01T00:00:00Z", port=0):
        command = [program, "serve", "--port", port, "--rows", rows, "--commits", commits, "--cache", OBJECTS, "--start", start]
        command += ["--change-rate", change_rate] if change_rate else []
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.environment = {}
        for line in self.process.stdout:
            if line.strip().startswith("export "):
                self.environment = dict(word.split("=", 1) for word in shlex.split(line)[1:])
                break
        if not self.environment:
            raise SystemExit("the embedded server did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port, seconds=120):
    for _ in range(seconds * 20):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"no server listens at port {port}")


def state_folder(folder):
    """Variables that keep the state of runs in a folder of the benchmark."""
    return {"DAPLAKE_STATE_DIR": os.path.join(folder, "state")}
