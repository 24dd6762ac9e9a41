"""Results: printed as a table, and with `--save` appended to `benches/results/NAME.csv`."""

import csv
import datetime
import os
import platform
import subprocess

from .programs import ROOT

FOLDER = ROOT / "benches" / "results"
COLUMNS = [
    "commit", "date", "machine", "cores", "case", "tool", "runs", "rows", "seconds", "cpu_seconds", "server_cpu_seconds", "peak_mib",
    "bytes_out", "ratio",
]


def processor():
    """The model of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """The commit of the working tree, with `+` if files differ from it."""
    git = lambda *arguments: subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def shown(value, digits=2):
    return "" if value is None else f"{value:,.{digits}f}"


class Results:
    """The rows of one benchmark. `ratio` is the CPU time of a row divided by that of the `baseline` tool of the same case."""

    def __init__(self, name, save):
        self.path = FOLDER / f"{name}.csv" if save else None
        self.about = {
            "commit": commit(), "date": datetime.date.today().isoformat(), "machine": processor(), "cores": len(os.sched_getaffinity(0)),
        }
        self.case = None
        self.baselines = {}
        self.failures = 0

    def add(self, case, tool, measured, runs=1, rows=None, baseline=None):
        """Prints a row, and saves it if asked to. Rows of the baseline must come first in their case."""
        if case != self.case:
            self.case = case
            print(f"\n{case}\n{'':<44} {'CPU s':>9} {'wall s':>9} {'peak MiB':>9} {'MiB out':>9} {'server CPU s':>13} {'ratio':>6}")
        self.baselines.setdefault(case, {})[tool] = measured.cpu_seconds
        base = self.baselines[case].get(baseline)
        ratio = measured.cpu_seconds / base if base and measured.cpu_seconds is not None else None
        mib_out = None if measured.bytes_out is None else measured.bytes_out / 2**20
        print(
            f"  {tool:<42} {shown(measured.cpu_seconds):>9} {shown(measured.seconds):>9} {shown(measured.peak_mib, 0):>9} "
            f"{shown(mib_out):>9} {shown(measured.server_cpu_seconds):>13} {shown(ratio):>6}",
            flush=True,
        )
        row = {
            **self.about, "case": case, "tool": tool, "runs": runs, "rows": rows, "seconds": measured.seconds,
            "cpu_seconds": measured.cpu_seconds, "server_cpu_seconds": measured.server_cpu_seconds, "peak_mib": measured.peak_mib,
            "bytes_out": measured.bytes_out, "ratio": ratio,
        }
        if self.path:
            self.save(row)

    def failed(self, case, tool, reason):
        self.failures += 1
        print(f"  {tool}: failed: {reason}", flush=True)

    def save(self, row):
        FOLDER.mkdir(exist_ok=True)
        is_new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
            writer.writerow(rounded)
