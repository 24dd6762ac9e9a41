"""A run over more than 100 small tables into a distant database: wall time, and round trips per table.

Private PostgreSQL and MariaDB servers are reached through a proxy that delays the bytes of both directions by half of `--latency`. It counts
a round trip whenever the client sends something after the server has sent something.
"""

import asyncio
import re
import tempfile

from . import measure, programs, service
from .proxy import Proxy
from .results import Results
from .servers import MariaDb, Postgres

KINDS = {"postgresql": Postgres, "mariadb": MariaDb}


def arguments(parser):
    parser.add_argument("--rows", type=int, default=200, help="rows of submissions; other tables in proportion (default: 200)")
    parser.add_argument("--latency", type=float, default=20, help="milliseconds of a round trip (default: 20)")
    parser.add_argument("--runs", type=int, default=3, help="runs without changes (default: 3)")
    parser.add_argument("--servers", default="postgresql,mariadb")


def main(options):
    program = programs.daplake(options)
    results = Results("round-trips", options.save)
    for kind in options.servers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            server = KINDS[kind](folder)
            try:
                server.make("target")
                compare(results, server, options, program, folder)
            finally:
                server.stop()
    return int(results.failures > 0)


def compare(results, server, options, program, folder):
    port, server.port = server.port, service.free_port()
    proxy = DelayProxy(server.port, port, options.latency / 2000)
    command = [program, "--non-interactive", "sync", "--namespace", "all", "--jobs-per-minute", "0", "--target", server.url("target")]

    def run(case, embedded, count=1):
        taken, before = [], proxy.round_trips
        for _ in range(count):
            taken.append(measure.run(command, env={**embedded.environment, **service.state_folder(folder)}))
        tables = int(re.search(r"(\d+) tables", taken[-1].output)[1])
        tool = f"daplake sync, {(proxy.round_trips - before) / count / tables:.1f} round trips per table"
        results.add(f"{server.name}, {options.latency:g} ms, {tables} {case}", tool, measure.median(taken), count)

    with service.EmbeddedServer(program, options.rows, 1, change_rate=0.1) as embedded:
        run("new tables", embedded)
    with service.EmbeddedServer(program, options.rows, 2, change_rate=0.1) as embedded:
        run("tables with an increment", embedded)
        run("tables without changes", embedded, options.runs)


class DelayProxy(Proxy):
    """Delays the bytes of both directions. `round_trips` counts the round trips so far."""

    def __init__(self, port, upstream, delay):
        self.upstream, self.delay, self.round_trips = upstream, delay, 0
        super().__init__(port)

    async def connection(self, reader, writer):
        # One round trip to connect.
        self.round_trips += 1
        await asyncio.sleep(2 * self.delay)
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        state = {"answered": False}
        ways = [self.way(reader, back_writer, state, False), self.way(back_reader, writer, state, True)]
        await asyncio.gather(*ways, return_exceptions=True)

    async def way(self, reader, writer, state, is_answer):
        queue = asyncio.Queue()
        delivery = asyncio.create_task(self.deliver(queue, writer))
        try:
            while data := await reader.read(1 << 16):
                if is_answer:
                    state["answered"] = True
                elif state["answered"]:
                    state["answered"] = False
                    self.round_trips += 1
                queue.put_nowait((asyncio.get_running_loop().time() + self.delay, data))
        finally:
            queue.put_nowait((0, b""))
            await delivery

    async def deliver(self, queue, writer):
        while True:
            due, data = await queue.get()
            if not data:
                break
            await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
            writer.write(data)
            await writer.drain()
        writer.close()
