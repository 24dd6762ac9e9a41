"""A run over all tables in which nothing has changed: CPU time per table, and requests to an object store.

The lake is in a local folder or, with `--target`, in an object store of S3. Requests to the store then go through a small proxy that counts
them and delays each by `--latency` milliseconds. The variables AWS_* give credentials and endpoint.
"""

import asyncio
import os
import re
import tempfile
import urllib.parse
import uuid

from . import measure, programs, service
from .proxy import Proxy
from .results import Results

REQUEST = re.compile(rb"(?:GET|PUT|HEAD|POST|DELETE) \S+ HTTP/1")


def arguments(parser):
    parser.add_argument("--rows", type=int, default=200, help="rows of submissions; other tables in proportion (default: 200)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--target", metavar="URL", help="an s3:// URL below which the lake is written; a local folder if not given")
    parser.add_argument("--latency", type=float, default=20, help="milliseconds that each request to the store is delayed (default: 20)")


def main(options):
    program = programs.daplake(options)
    results = Results("unchanged", options.save)
    with tempfile.TemporaryDirectory() as work, service.EmbeddedServer(program, options.rows) as server:
        environment = {**server.environment, **service.state_folder(work)}
        place, target, proxy = "local folder", os.path.join(work, "lake"), None
        if options.target:
            place, target = f"S3, {options.latency:g} ms", f"{options.target.rstrip('/')}/{uuid.uuid4().hex}"
            proxy = CountingProxy(os.environ["AWS_ENDPOINT_URL"], options.latency / 1000)
            environment.update(AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}", AWS_ALLOW_HTTP="true")
        command = [program, "sync", "--target", target, "--jobs-per-minute", "0", "--temp-dir", work]
        for _ in range(2):
            measure.run(command, env=environment)
        taken, requests = [], 0
        for _ in range(options.runs):
            before = proxy.requests if proxy else 0
            taken.append(measure.run(command, env=environment))
            requests = proxy.requests - before if proxy else 0
        tables = int(re.search(r"(\d+) tables", taken[-1].output)[1])
        tool = f"daplake sync, {requests / tables:.1f} requests per table" if proxy else "daplake sync"
        results.add(f"{tables} unchanged tables, {place}", tool, measure.median(taken), options.runs)
    return int(results.failures > 0)


class CountingProxy(Proxy):
    """A proxy for HTTP without TLS. `requests` counts the requests so far."""

    def __init__(self, endpoint, delay):
        self.requests, self.delay = 0, delay
        self.upstream = urllib.parse.urlsplit(endpoint)
        super().__init__(service.free_port())

    async def connection(self, reader, writer):
        back_reader, back_writer = await asyncio.open_connection(self.upstream.hostname, self.upstream.port or 80)
        await asyncio.gather(self.copy(reader, back_writer, True), self.copy(back_reader, writer, False), return_exceptions=True)

    async def copy(self, reader, writer, is_request):
        try:
            while data := await reader.read(1 << 16):
                if is_request and REQUEST.match(data):
                    self.requests += 1
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
