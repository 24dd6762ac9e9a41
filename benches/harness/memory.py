"""Time and peak memory of one sync into a new Delta table, by number of rows, memory limit and format."""

import json
import os
import tempfile

from . import measure, programs, service
from .results import Results


def arguments(parser):
    parser.add_argument("--rows", default="1000000", help="rows of submissions, several by commas; web_logs has five times as many (default: 1000000)")
    parser.add_argument("--limits", default="256MiB", help="values of --memory-limit (default: 256MiB)")
    parser.add_argument("--formats", default="jsonl", help="formats of the download (default: jsonl)")
    parser.add_argument("--table", default="canvas.submissions")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("options", nargs="*", help="more options of sync, after --")


def main(options):
    program = programs.daplake(options)
    results = Results("memory", options.save)
    namespace, table = options.table.split(".")
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as work, service.EmbeddedServer(program, rows) as server:
            environment = {**server.environment, **service.state_folder(work)}
            for download_format in options.formats.split(","):
                for limit in options.limits.split(","):
                    taken, report = [], os.path.join(work, "report.json")
                    for run in range(options.runs + 1):
                        out = os.path.join(work, f"{download_format}-{limit}-{run}")
                        command = [program, "sync", "--target", out, "--namespace", namespace, "--table", table, "--jobs-per-minute", "0"]
                        command += ["--memory-limit", limit, "--temp-dir", work, "--download-format", download_format]
                        measured = measure.run([*command, "--report", report, *options.options], env=environment)
                        measured.bytes_out = measure.bytes_in(out, ".parquet")
                        # The first run fills the server's cache.
                        if run > 0:
                            taken.append(measured)
                    with open(report) as file:
                        loaded = json.load(file)["tables"][0]
                    case = f"{options.table}, {loaded['upserted']:,} rows, {download_format}"
                    middle = measure.median(taken)
                    results.add(case, f"--memory-limit {limit}", middle, runs=len(taken), rows=loaded["upserted"])
                    seconds = loaded["phases"]["load"] + loaded["phases"]["commit"]
                    print(f"    load and commit of the last run: {seconds:.2f} s, {loaded['upserted'] / seconds:,.0f} rows/s", flush=True)
    return 0
