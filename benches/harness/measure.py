"""Runs a command and measures wall time, CPU time and peak memory of it and of the children that it waited for.

As a script it is the small process between the benchmark and the command: Linux counts the memory of the process that starts a command
towards the command's peak, so that process must be small.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time


@dataclasses.dataclass
class Measurement:
    """Wall time and CPU time in seconds, peak resident memory in MiB, standard output, and the bytes that a case has written."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str = ""
    bytes_out: int | None = None
    server_cpu_seconds: float | None = None


class Failed(Exception):
    """The measured command ended with an error; the text is the end of its output."""


def run(command, env=None, cwd=None):
    """Measures a command. `env` is added to the environment. Raises `Failed` if it does not exit with 0."""
    read, write = os.pipe()
    launcher = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(write), *map(str, command)]
    process = subprocess.Popen(
        launcher, env={**os.environ, **(env or {})}, cwd=cwd, pass_fds=[write], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    output, errors = process.communicate()
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if process.returncode != 0 or not text:
        raise Failed((errors.strip() or output.strip())[-800:] or f"{command[0]} ended with {process.returncode}")
    seconds, cpu_seconds, peak_mib = json.loads(text)
    return Measurement(seconds, cpu_seconds, peak_mib, output)


def median(runs):
    """The median of each figure; the last output."""
    middle = lambda values: None if any(value is None for value in values) else statistics.median(values)
    return Measurement(
        middle([run.seconds for run in runs]),
        middle([run.cpu_seconds for run in runs]),
        middle([run.peak_mib for run in runs]),
        runs[-1].output,
        middle([run.bytes_out for run in runs]),
        middle([run.server_cpu_seconds for run in runs]),
    )


def bytes_in(folder, ending=""):
    """Bytes of all files below a folder whose name has this ending."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names if name.endswith(ending))


def cpu_seconds_of(pid):
    """CPU seconds of a running process, of its children, and of the children that have ended (Linux)."""
    total = 0
    # A server accounts for a session shortly after the session has ended.
    time.sleep(0.3)
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stat:
                fields = stat.read().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        if int(entry) == pid:
            total += sum(int(ticks) for ticks in fields[11:15])
        elif int(fields[1]) == pid:
            total += sum(int(ticks) for ticks in fields[11:13])
    return total / os.sysconf("SC_CLK_TCK")


def launch(report, command):
    begun = time.monotonic()
    code = subprocess.call(command, close_fds=True)
    seconds = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Bytes on macOS, KiB elsewhere.
    peak = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    os.write(report, json.dumps([seconds, used.ru_utime + used.ru_stime, peak]).encode())
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
