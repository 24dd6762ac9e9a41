"""A whole sync of one large table, against other tools on the same objects.

Each tool turns gzipped JSON lines into one table compressed by zstd; runs alternate between the tools. The other tools read local files.
daplake does its whole job over HTTP: login, job, download, verification of every gzip member, decoding, unique keys (for web_logs the newest
row of each key), and a Delta commit.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from . import measure, programs, service
from .results import Results

TABLES = {"submissions": "canvas", "web_logs": "canvas_logs"}


def arguments(parser):
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of submissions; web_logs has five times as many (default: 1000000)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tools", default="duckdb,polars,deltalake", help="others: duckdb-1 (one thread), dlt (default: duckdb,polars,deltalake)")
    parser.add_argument("--tables", default="submissions,web_logs")


def main(options):
    program = programs.daplake(options)
    tools = [tool for tool in options.tools.split(",") if tool]
    python = programs.environment("bench-venv", "requirements.txt") if tools else None
    results = Results("compare", options.save)
    with tempfile.TemporaryDirectory() as work, service.EmbeddedServer(program, options.rows) as server:
        environment = {**server.environment, **service.state_folder(work)}
        for table in options.tables.split(","):
            compare(results, options, program, environment, pathlib.Path(work), table, tools, python)
    return int(results.failures > 0)


def compare(results, options, program, environment, work, table, tools, python):
    selection = ["--namespace", TABLES[table], "--table", table]
    objects, schema = prepare(program, environment, work / "files" / table, selection)
    packed = sum(os.path.getsize(path) for path in objects)

    def sync(out, *more):
        limit = "64MiB" if table == "web_logs" else "256MiB"
        command = [program, "sync", "--target", out, *selection, "--memory-limit", limit, *more, "--jobs-per-minute", "0"]
        return command + ["--temp-dir", work]

    contenders = {tool: lambda out, tool=tool: [python, peers(), tool, schema, out, *objects] for tool in tools}
    contenders["daplake sync"] = lambda out: sync(out, "--partition-by", f"{table}=none")
    contenders["daplake snapshot --convert parquet"] = lambda out: [
        program, "--non-interactive", "snapshot", *selection, "--jobs-per-minute", "0", "--convert", "parquet", "--fresh",
        "--output-directory", out,
    ]
    if table == "web_logs":
        # The default for logs.
        if "duckdb" in tools:
            contenders["duckdb, a file per day"] = lambda out: [python, peers(), "duckdb-days", schema, out, *objects]
        contenders["daplake sync, a file per day"] = sync

    case = f"{table}, {options.rows * (5 if table == 'web_logs' else 1):,} rows, {len(objects)} objects, {packed / 2**20:.0f} MiB compressed"
    runs = {name: [] for name in contenders}
    for _ in range(options.runs):
        for name, command in contenders.items():
            if runs[name] is None:
                continue
            out = work / "out"
            out.mkdir()
            try:
                measured = measure.run(command(str(out / "table")), env=environment)
                measured.bytes_out = measure.bytes_in(out, ".parquet")
                runs[name].append(measured)
            except measure.Failed as error:
                results.failed(case, name, error)
                runs[name] = None
            shutil.rmtree(out)
    for name, taken in runs.items():
        if taken:
            results.add(case, name, measure.median(taken), runs=len(taken), baseline="duckdb, a file per day" if name.endswith("a file per day") else "duckdb")


def peers():
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers.py")


def prepare(program, environment, files, selection):
    """Downloads the objects and the schema, which is not measured: paths of the objects, and a file with the types for the other tools."""
    print(f"preparing the objects of {selection[-1]} (not measured)", flush=True)
    for command in (["snapshot", "--jobs-per-minute", "0"], ["schema"]):
        whole = [program, "--non-interactive", command[0], *selection, *command[1:], "--output-directory", files]
        subprocess.run(whole, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    source = json.loads(next(files.glob("*_schema_version_*.json")).read_text())["schema"]
    groups = {group: source["properties"][group]["properties"] for group in ("key", "value")}
    types = {group: {name: duckdb_type(node) for name, node in members.items()} for group, members in groups.items()}
    schema = files / "schema.json"
    schema.write_text(json.dumps(types))
    return sorted(str(path) for path in files.rglob("*.gz")), str(schema)


def duckdb_type(node):
    kind = node.get("type")
    if kind == "integer":
        return {"int16": "SMALLINT", "int32": "INTEGER"}.get(node.get("format"), "BIGINT")
    if kind == "number":
        return "FLOAT" if node.get("format") == "float32" else "DOUBLE"
    if kind == "boolean":
        return "BOOLEAN"
    if kind == "string":
        return {"date-time": "TIMESTAMP", "date": "DATE"}.get(node.get("format"), "VARCHAR")
    if kind == "array" and node["items"].get("type") in ("integer", "string"):
        return duckdb_type(node["items"]) + "[]"
    return "VARCHAR"
