"""One increment into Delta tables of several sizes, against a merge by the Delta crate and rewrites by DuckDB and polars.

66,000 changes (50,000 updates, 10,000 deletes, 6,000 repeated keys) go into tables of narrow rows; keys are spread over the whole table
("random") or among the newest rows ("recent"). Every run is a process of its own and starts from the same files (hard links). The bytes
are those by which the table's folder grows, log included.
"""

import json
import os
import shutil
import tempfile

from . import measure, programs
from .results import Results

DUCKDB = """
import sys, glob, duckdb
folder, keys = sys.argv[1], sys.argv[2]
files = sorted(glob.glob(folder + "/lake/bench/logs/*.parquet"))
c = duckdb.connect()
c.execute("SET threads = 2; SET preserve_insertion_order = false; SET memory_limit = '2GB'; SET TimeZone = 'UTC'")
c.execute(f"CREATE TEMP TABLE changes AS SELECT * EXCLUDE rank FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY _ts DESC, _seq DESC) AS rank FROM '{folder}/changes-{keys}.parquet') WHERE rank = 1")
c.execute(f"COPY (SELECT * FROM read_parquet({files}) t ANTI JOIN changes USING (id) UNION ALL BY NAME SELECT * EXCLUDE (_action, _ts, _seq) FROM changes WHERE _action = 'U') TO '{folder}/lake/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)")
"""

POLARS = """
import sys, polars as pl
folder, keys = sys.argv[1], sys.argv[2]
hidden = ["_action", "_ts", "_seq"]
changes = pl.read_parquet(f"{folder}/changes-{keys}.parquet").sort("_ts", "_seq").unique("id", keep="last")
table = pl.scan_parquet(folder + "/lake/bench/logs/*.parquet")
kept = table.join(changes.select("id").lazy(), on="id", how="anti")
new = changes.filter(pl.col("_action") == "U").drop(hidden).lazy()
pl.concat([kept, new], how="diagonal").sink_parquet(folder + "/lake/polars.parquet", compression="zstd", compression_level=3)
"""


def arguments(parser):
    parser.add_argument("--rows", default="1000000,5000000,20000000", help="sizes of the table (default: 1000000,5000000,20000000)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keys", default="random,recent")
    parser.add_argument("--only", help="only tools whose name contains this text")


def main(options):
    steps = programs.steps(options)
    results = Results("increment", options.save)
    with tempfile.TemporaryDirectory(prefix="daplake-increment-") as work:
        for rows in map(int, options.rows.split(",")):
            increments_into(results, options, steps, work, rows)
    return int(results.failures > 0)


def increments_into(results, options, steps, work, rows):
    base, run = os.path.join(work, "base"), os.path.join(work, "run")
    shutil.rmtree(base, ignore_errors=True)
    os.makedirs(base)
    made = measure.run([steps, "make", base, rows])
    figures = json.loads(made.output.splitlines()[-1])
    made.bytes_out = figures["bytes"]
    results.add(f"{rows:,} rows, first load", "daplake (rows generated in the same process)", made, rows=rows)
    for keys in options.keys.split(","):
        tools = {f"daplake, deletion vectors {mode}": [steps, "apply", run, mode, keys] for mode in ("auto", "off")}
        tools["merge of the Delta crate"] = [steps, "merge", run, keys]
        wanted = lambda name: not options.only or options.only in name
        if any(wanted(name) for name in ("DuckDB", "polars")):
            python = programs.environment("bench-venv", "requirements.txt")
            tools["DuckDB, anti-join rewrite"] = [python, "-c", DUCKDB, run, keys]
            tools["polars, anti-join rewrite"] = [python, "-c", POLARS, run, keys]
        tools = {name: command for name, command in tools.items() if wanted(name)}
        case = f"{rows:,} rows, {keys} keys"
        runs = {name: [] for name in tools}
        # Tools alternate, so that a busy minute does not affect one of them only.
        for _ in range(options.runs):
            for name, command in tools.items():
                copy(base, run)
                before = measure.bytes_in(os.path.join(run, "lake"))
                try:
                    measured = measure.run(command, env={"POLARS_MAX_THREADS": "2"})
                except measure.Failed as error:
                    results.failed(case, name, error)
                    continue
                measured.bytes_out = measure.bytes_in(os.path.join(run, "lake")) - before
                runs[name].append(measured)
        for name, taken in runs.items():
            if taken:
                results.add(case, name, measure.median(taken), runs=len(taken), rows=rows, baseline="daplake, deletion vectors auto")
        print(f"  the rows that these changes leave, as a Parquet file of their own: {figures['changed'][keys] / 2**20:.2f} MiB", flush=True)


def copy(base, work):
    """The same table in another folder, by hard links."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work, copy_function=os.link, ignore=shutil.ignore_patterns("spill"))
