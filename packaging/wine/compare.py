"""Syncs one generated school with the Linux program and with the Windows program under wine, as Delta tables and as Parquet folders, over three
states of the data, and compares the tables value by value: `compare.py WORK LINUX WINDOWS`. Needs duckdb and deltalake.
"""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from school import WINE, free_port, serve

SYNC = ["sync", "--namespace", "all", "--jobs-per-minute", "0"]


def rows(relation):
    """The names of the columns, sorted, and all rows as text, sorted."""
    columns = sorted(relation.columns)
    texts = ", ".join('"' + name.replace('"', '""') + '"::VARCHAR' for name in columns)
    return columns, sorted(map(repr, relation.select(texts).fetchall()))


def delta(folder):
    return rows(duckdb.from_arrow(DeltaTable(folder).to_pyarrow_table()))


def parquet(folder):
    return rows(duckdb.read_parquet(str(folder / "*.parquet"), union_by_name=True))


def tables(lake, marker):
    return sorted(path.parent.relative_to(lake).as_posix() for path in lake.glob(f"*/*/{marker}") if not path.parts[-3].startswith((".", "_")))


def main():
    work, linux, windows = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    port = free_port()
    with open(work / "log.txt", "wb") as log:
        for commits in (1, 2, 3):
            server, account = serve(linux, port, commits, log)
            try:
                for system, program in (("linux", [linux]), ("windows", [WINE, windows])):
                    for form in ("delta", "parquet"):
                        options = ["--target", f"{system}-{form}", "--format", form, "--state-dir", f"{system}-state"]
                        done = subprocess.run([*program, *SYNC, *options], cwd=work, env={**os.environ, **account}, stdout=log, stderr=log)
                        if done.returncode != 0:
                            raise SystemExit(f"{system}: sync of state {commits} as {form} ended with {done.returncode}; see {log.name}")
            finally:
                server.terminate()
                server.wait()
    different, count = [], 0
    for form, marker, read in (("delta", "_delta_log", delta), ("parquet", "_daplake.json", parquet)):
        linux_lake, windows_lake = work / f"linux-{form}", work / f"windows-{form}"
        names = tables(linux_lake, marker)
        if names != tables(windows_lake, marker) or len(names) < 100:
            raise SystemExit(f"{form}: the two programs wrote different tables, or too few ({len(names)})")
        for name in names:
            count += 1
            if read(linux_lake / name) != read(windows_lake / name):
                different.append(f"{form} {name}")
    if different:
        raise SystemExit("different: " + ", ".join(different))
    print(f"ok: {count} tables of the Windows program equal those of the Linux program")


main()
