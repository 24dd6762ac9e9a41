"""Downloading the objects of one large table, against curl on the same server.

daplake also logs in, waits for the job, unpacks every file to verify it, and syncs it to disk. curl writes what arrives.
"""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
import urllib.request

from . import measure, programs, service
from .results import Results


def arguments(parser):
    parser.add_argument("--rows", type=int, default=5_500_000, help="rows of submissions (default: 5500000, about 2 GiB of jsonl)")
    parser.add_argument("--format", default="jsonl")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)


def main(options):
    program = programs.daplake(options)
    results = Results("download", options.save)
    with tempfile.TemporaryDirectory() as work, service.EmbeddedServer(program, options.rows) as server:
        work = pathlib.Path(work)
        environment = {**server.environment, **service.state_folder(work)}
        ours, theirs = work / "daplake", work / "curl"
        command = [program, "--non-interactive", "--no-log-to-console", "snapshot", "--namespace", "canvas", "--table", "submissions"]
        command += ["--format", options.format, "--concurrency", options.concurrency, "--jobs-per-minute", "0"]
        command += ["--output-directory", ours, "--fresh"]
        print("filling the server's cache (not measured)", flush=True)
        measure.run(command, env=environment)
        tools = {"curl": [], "daplake snapshot": []}
        for _ in range(options.runs):
            for folder in (ours, theirs):
                shutil.rmtree(folder, ignore_errors=True)
            theirs.mkdir()
            tools["daplake snapshot"].append(measure.run(command, env=environment))
            urls = signed_urls(server.environment, options.format, theirs, work / "curl.txt")
            curl = ["curl", "--no-progress-meter", "--fail", "--parallel", "--parallel-max", options.concurrency, "--config", urls]
            tools["curl"].append(measure.run(curl))
        size = measure.bytes_in(theirs)
        case = f"submissions, {options.format}, {options.rows:,} rows, {size / 2**20:.0f} MiB, {options.concurrency} at once"
        for tool, taken in tools.items():
            middle = measure.median(taken)
            middle.bytes_out = size
            results.add(case, tool, middle, runs=len(taken), rows=options.rows, baseline="curl")
            print(f"    {size / middle.seconds / 1e6:.0f} MB/s", flush=True)
        if options.format != "parquet":
            files = work / "files.txt"
            files.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in theirs.iterdir()))
            results.add(case, "gzip -t of all files", measure.run(["xargs", "-0", "-a", files, "-P", options.concurrency, "-n", 4, "gzip", "-t"]))
        if digests(ours) != digests(theirs):
            raise SystemExit("the files differ")
        print("both tools have the same bytes")
    return 0


def signed_urls(environment, file_format, folder, config):
    """A configuration file for curl with the signed URL of every object."""
    base, name, secret = (environment[key] for key in ("DAP_API_URL", "DAP_CLIENT_ID", "DAP_CLIENT_SECRET"))

    def call(path, body=None, **headers):
        return json.load(urllib.request.urlopen(urllib.request.Request(base.rstrip("/") + path, data=body, headers=headers)))

    basic = "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()
    login = call("/ids/auth/login", b"grant_type=client_credentials", Authorization=basic)
    bearer = {"Authorization": "Bearer " + login["access_token"], "Content-Type": "application/json"}
    job = call("/dap/query/canvas/table/submissions/data", json.dumps({"format": file_format}).encode(), **bearer)
    while "objects" not in job:
        time.sleep(0.5)
        job = call("/dap/job/" + job["id"], **bearer)
    with open(config, "w") as file:
        for place in range(0, len(job["objects"]), 50):
            batch = job["objects"][place : place + 50]
            urls = call("/dap/object/url", json.dumps(batch).encode(), **bearer)["urls"]
            for item in batch:
                file.write(f'url = "{urls[item["id"]]["url"]}"\noutput = "{folder}/{item["id"].rsplit("/")[-1]}"\n')
    return config


def digests(folder):
    files = [path for path in folder.rglob("part-*") if path.is_file()]
    return sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)
