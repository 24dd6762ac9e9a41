"""Reads a table of a Parquet folder with DuckDB repeatedly until a file appears, and prints the results as JSON.

usage: watch.py ROOT NAMESPACE TABLE KEY [STOP_FILE]

Without STOP_FILE it reads once. A result is the number of rows, of keys and a sum over all cells, through the files and through the views.
"""

import json
import os
import sys

import duckdb

root, namespace, table, key = sys.argv[1:5]
stop = sys.argv[5] if len(sys.argv) > 5 else None
by_files = f"read_parquet('{root}/{namespace}/{table}/*.parquet', union_by_name = true)"
by_view = f'"{namespace}"."{table}"'
seen = {"files": {}, "views": {}, "missed": 0, "reads": 0}


def note(kind, source):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if kind == "views":
        with open(f"{root}/views.sql") as file:
            connection.execute(file.read())
    query = f"SELECT count(*), count(DISTINCT {key}), sum(hash(t::VARCHAR) % 1000000007) FROM {source} t"
    row = connection.execute(query).fetchone()
    seen[kind][str(row)] = seen[kind].get(str(row), 0) + 1


while True:
    seen["reads"] += 1
    try:
        note("files", by_files)
    except duckdb.IOException:
        # A file of the old version was removed before it was read: an error, but not a mixture of versions.
        seen["missed"] += 1
    note("views", by_view)
    if stop is None or os.path.exists(stop):
        break
print(json.dumps(seen))
sys.stdout.flush()
os._exit(0)
