"""One large table through a cluster on this machine, against one process: the same objects, object store and table.

The table is web_logs; the store is the S3 server of PyPI's `moto`, which is not counted. The CPU time of the cluster is that of driver,
scheduler and executors. Both tables are compared by an independent reader: rows, and a sum of hashes over all columns.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import urllib.request

from . import measure, programs, service
from .results import Results

DIGEST = """
import json, os, sys
import duckdb, pyarrow
from deltalake import DeltaTable, QueryBuilder
for target in sys.argv[1:]:
    options = {**{name: value for name, value in os.environ.items() if name.startswith("AWS_")}, "AWS_ALLOW_HTTP": "true"}
    table = DeltaTable(f"s3://lakes/{target}/canvas_logs/web_logs", storage_options=options)
    logs = pyarrow.RecordBatchReader.from_stream(QueryBuilder().register("logs", table).execute("SELECT * FROM logs"))
    print(json.dumps([str(value) for value in duckdb.sql("SELECT count(*), bit_xor(hash(logs)) FROM logs").fetchall()[0]]))
"""


def arguments(parser):
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of submissions; web_logs has five times as many (default: 1000000)")
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="cores of each executor (default: 1)")
    parser.add_argument("--increments", type=int, default=3, help="increments after the snapshot (default: 3)")


class Node:
    """A server of the benchmark with a log file."""

    def __init__(self, work, name, *command, env=None):
        self.log = open(work / f"{name}.log", "w")
        command = list(map(str, command))
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})})

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def peak_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main(options):
    program = programs.daplake(options, features=["cluster"])
    python = programs.environment("cluster-venv", "requirements-cluster.txt")
    results = Results("cluster", options.save)
    nodes = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        try:
            return run(options, program, python, results, work, nodes)
        finally:
            for node in nodes:
                node.stop()


def run(options, program, python, results, work, nodes):
    def start(name, *command, env=None):
        nodes.append(Node(work, name, *command, env=env))
        return nodes[-1]

    store = service.free_port()
    start("store", pathlib.Path(python).with_name("moto_server"), "-H", "127.0.0.1", "-p", store)
    service.wait_for_port(store)
    endpoint = f"http://127.0.0.1:{store}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/lakes", method="PUT")).read()
    keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}

    at = service.free_port()
    scheduler = start("scheduler", program, "scheduler", "--listen", f"127.0.0.1:{at}")
    service.wait_for_port(at)
    executors = []
    for number in range(options.executors):
        ports, scratch = (service.free_port(), service.free_port()), work / f"executor{number}"
        scratch.mkdir()
        command = [program, "executor", "--scheduler", f"127.0.0.1:{at}", "--port", ports[0], "--control-port", ports[1]]
        command += ["--cores", options.cores, "--memory-limit", "256MiB", "--temp-dir", scratch]
        executors.append(start(f"executor{number}", *command, env=keys))
        service.wait_for_port(ports[0])

    cluster = ["--cluster", f"df://127.0.0.1:{at}", "--cluster-parts", 2 * options.executors * options.cores]
    port = service.free_port()
    for commits in range(1, options.increments + 2):
        with service.EmbeddedServer(program, options.rows, commits, port=port) as server:
            environment = {**server.environment, **service.state_folder(work), **keys}

            def sync(target, *more):
                command = [program, "sync", "--target", f"s3://lakes/{target}", "--store-option", "allow_http=true", "--namespace"]
                command += ["canvas_logs", "--table", "web_logs", "--jobs-per-minute", "0", "--memory-limit", "256MiB", "--temp-dir", work]
                before = cpu_seconds([scheduler, *executors])
                measured = measure.run([*command, *more], env=environment)
                return measured, cpu_seconds([scheduler, *executors]) - before

            if commits == 1:
                sync("warm")
            case = "snapshot" if commits == 1 else f"increment {commits - 1}"
            one, _ = sync("one")
            results.add(case, "one process", one, baseline="one process")
            driver, others = sync("many", *cluster)
            print(f"    driver {driver.cpu_seconds:.1f} CPU s, peak {driver.peak_mib:.0f} MiB; wall time against one process "
                  f"{driver.seconds / one.seconds:.2f}")
            driver.cpu_seconds += others
            driver.peak_mib = max(node.peak_mib() for node in executors)
            name = f"cluster, {options.executors} executors of {options.cores} cores (peak: of an executor)"
            results.add(case, name, driver, baseline="one process")
    digests = subprocess.run([python, "-c", DIGEST, "one", "many"], env={**os.environ, **keys}, check=True, capture_output=True, text=True)
    one, many = digests.stdout.splitlines()
    print(f"as read by deltalake and duckdb: {'the same rows in both tables' if one == many else f'DIFFERENT ROWS: {one} {many}'}")
    return int(one != many)


def cpu_seconds(nodes):
    return sum(measure.cpu_seconds_of(node.process.pid) for node in nodes)
