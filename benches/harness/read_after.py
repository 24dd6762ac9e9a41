"""Reading a table after many increments without compaction, against the same table after `optimize`.

Each increment has 66,000 changes with keys spread over the table. All columns of all rows are read, by daplake and by DuckDB with its
`delta` extension.
"""

import os
import tempfile

from . import measure, programs
from .increment import copy
from .results import Results

DUCKDB = """
import sys, glob, duckdb
import duckdb_extension_delta
here = list(duckdb_extension_delta.__path__)[0]
c = duckdb.connect(config={"allow_unsigned_extensions": "true"})
c.execute("LOAD '" + glob.glob(here + "/extensions/*/delta.duckdb_extension")[0] + "'")
c.execute("SET threads = 2")
c.execute(f"SELECT count(*), sum(id), sum(user_id), sum(course_id), max(epoch_us(timestamp)), min(http_method), sum(http_status), max(url), max(session_id) FROM delta_scan('{sys.argv[1]}/lake/bench/logs')").fetchall()
"""


def arguments(parser):
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--steps", default="20,50", help="numbers of increments after which the table is read (default: 20,50)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mode", default="auto", help="deletion vectors: auto, on or off (default: auto)")
    parser.add_argument("--without-duckdb", action="store_true")


def main(options):
    program = programs.steps(options)
    readers = {"daplake query": [program, "read"]}
    if not options.without_duckdb:
        python = programs.environment("duckdb-delta-bench", "../tests/duckdb-delta.txt")
        readers["DuckDB, delta extension"] = [python, "-c", DUCKDB]
    results = Results("read-after", options.save)
    steps = [int(step) for step in options.steps.split(",")]
    with tempfile.TemporaryDirectory(prefix="daplake-read-after-") as work:
        table = os.path.join(work, "table")
        os.makedirs(table)
        measure.run([program, "make", table, options.rows])
        # A case is a number of increments; its states are the table as it is, and after `optimize`.
        cases = {"new": {"new": kept(table, work, "new")}}
        for step in range(1, steps[-1] + 1):
            measure.run([program, "changes", table, options.rows, step])
            measure.run([program, "apply", table, options.mode, "random"])
            if step in steps:
                optimized = kept(table, work, f"optimized-{step}")
                measure.run([program, "optimize", optimized])
                cases[f"{step} increments"] = {"optimized": optimized, "not compacted": kept(table, work, f"after-{step}")}
        for reader, command in readers.items():
            runs = {folder: [] for states in cases.values() for folder in states.values()}
            for _ in range(options.runs):
                for folder, taken in runs.items():
                    taken.append(measure.run([*command, folder]))
            for case, states in cases.items():
                for state, folder in states.items():
                    name, base = f"{reader}, {state}", f"{reader}, optimized"
                    results.add(f"{options.rows:,} rows, {case}", name, measure.median(runs[folder]), options.runs, options.rows, base)
    return int(results.failures > 0)


def kept(table, work, name):
    copy(table, os.path.join(work, name))
    return os.path.join(work, name)
