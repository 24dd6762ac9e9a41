"""First load and increment of large tables into private PostgreSQL and MariaDB servers, against the server's own bulk path.

The bare statements are `COPY` (`LOAD DATA`) of a file into a table with its primary key, and the statements of a staging table for an
increment of a tenth of the rows. With `--official DAP` the official client does the same work on the same server. At the end all tables of
a small school are synced while nothing has changed. Other work on the machine affects wall time more than CPU time.

Disk space in TMPDIR: about 8 GB per million rows of submissions, 14 GB per five million of web_logs, and half as much for each further run.
"""

import os
import tempfile

from . import measure, programs, service
from .measure import Measurement, cpu_seconds_of
from .results import Results
from .servers import MariaDb, Postgres, script_of

KINDS = {"postgresql": Postgres, "mariadb": MariaDb}


def arguments(parser):
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of submissions; web_logs has five times as many (default: 1000000)")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--servers", default="postgresql,mariadb")
    parser.add_argument("--official", metavar="DAP", help="the program of the official client")
    parser.add_argument("tables", nargs="*", default=["canvas.submissions", "canvas_logs.web_logs"], metavar="NAMESPACE.TABLE")


def main(options):
    program = programs.daplake(options)
    results = Results("database", options.save)
    clients = {"daplake": program}
    if options.official:
        clients["official client"] = options.official
    for kind in options.servers.split(","):
        for table in options.tables:
            with tempfile.TemporaryDirectory() as folder:
                server = KINDS[kind](folder)
                try:
                    server.make("warm")
                    compare(results, server, options, program, table, clients)
                    if table == options.tables[-1]:
                        unchanged(results, server, options, program)
                finally:
                    server.stop()
    return 0


def bare(server, text):
    """Statements sent by the server's own client; its CPU time is part of the figure of the server."""
    script, before = script_of(server, text), cpu_seconds_of(server.process.pid)
    measured = measure.run(server.command("warm", script))
    return Measurement(measured.seconds, measured.cpu_seconds, measured.peak_mib, server_cpu_seconds=cpu_seconds_of(server.process.pid) - before)


def client(embedded, program, is_official, verb, table, server, database):
    """Runs `initdb` or `syncdb`, measured together with the server's CPU time."""
    namespace, name = table.split(".")
    command = [program, *(["--no-tracking"] if is_official else []), "--non-interactive", "--loglevel", "warning", verb]
    command += ["--namespace", namespace, "--table", name, *([] if is_official else ["--jobs-per-minute", "0"])]
    before = cpu_seconds_of(server.process.pid)
    measured = measure.run(command, env={**embedded.environment, "DAP_CONNECTION_STRING": server.url(database)})
    measured.server_cpu_seconds = cpu_seconds_of(server.process.pid) - before
    return measured


class Case:
    """The runs of one verb on one table."""

    def __init__(self, results, server, verb, table, count):
        self.results, self.count = results, count
        self.name = f"{server.name}, {table}, {verb}, {count:,} rows"
        self.runs = {}

    def add(self, tool, measured):
        self.runs.setdefault(tool, []).append(measured)

    def report(self):
        bare = measure.median(self.runs["bare statements"])
        for tool, taken in self.runs.items():
            middle = measure.median(taken)
            self.results.add(self.name, tool, middle, len(taken), self.count, baseline="daplake")
            print(f"    {self.count / middle.seconds:,.0f} rows/s, {middle.seconds / bare.seconds:.2f} of the wall time of the bare statements")


def compare(results, server, options, program, table, clients):
    target = server.table(table)
    # The rows before the change.
    before = server.other("bare0", table)
    with service.EmbeddedServer(program, options.rows, 1, change_rate=0.1) as embedded:
        print(f"filling the server's cache with {table} (not measured)", flush=True)
        client(embedded, program, False, "initdb", table, server, "warm")
        columns, key = server.columns(target)
        file, changed, gone = (f"{server.folder}/{name}.csv" for name in ("rows", "changed", "gone"))
        server.sql("warm", server.write(f"SELECT {', '.join(columns)} FROM {target}", file))
        case = Case(results, server, "initdb", table, int(server.sql("warm", f"SELECT COUNT(*) FROM {target}")))
        for run in range(options.runs):
            own = server.other(f"bare{run}", table)
            server.sql("warm", server.create_like(own, target))
            server.quiet()
            case.add("bare statements", bare(server, server.load(own, file)))
            if run == options.runs - 1:
                os.remove(file)
            # The table that is changed later has the same constraints as the one of daplake.
            for reference in server.references(target):
                server.sql("warm", f"ALTER TABLE {own} ADD {reference}")
            for number, (tool, path) in enumerate(clients.items()):
                database = f"client{number}_{run}"
                server.make(database)
                server.quiet()
                case.add(tool, client(embedded, path, number > 0, "initdb", table, server, database))
        case.report()

    with service.EmbeddedServer(program, options.rows, 2, change_rate=0.1) as embedded:
        print("filling the server's cache with the changes (not measured)", flush=True)
        client(embedded, program, False, "syncdb", table, server, "warm")
        on = " AND ".join(f"a.{name} = b.{name}" for name in key)
        all_of, keys_of = (", ".join(f"a.{name}" for name in names) for names in (columns, key))
        new_or_changed = f"b.{key[0]} IS NULL OR {server.differ(columns)}"
        server.sql("warm", server.write(f"SELECT {all_of} FROM {target} a LEFT JOIN {before} b ON {on} WHERE {new_or_changed}", changed))
        server.sql("warm", server.write(f"SELECT {keys_of} FROM {before} a LEFT JOIN {target} b ON {on} WHERE b.{key[0]} IS NULL", gone))
        stage = server.other("stage", table)
        counted = f"{server.create_like(stage, target)}; {server.load(stage, changed)}; SELECT COUNT(*) FROM {stage}"
        with open(gone) as lines:
            count = int(server.sql("warm", counted)) + sum(1 for _ in lines)
        server.sql("warm", f"DROP TABLE {stage}")
        case = Case(results, server, "syncdb", table, count)
        for run in range(options.runs):
            server.quiet()
            case.add("bare statements", bare(server, server.merge(server.other(f"bare{run}", table), target, columns, key, changed, gone)))
            for number, (tool, path) in enumerate(clients.items()):
                server.quiet()
                case.add(tool, client(embedded, path, number > 0, "syncdb", table, server, f"client{number}_{run}"))
        case.report()


def unchanged(results, server, options, program):
    """All tables of a small school, none of which has changed."""
    with service.EmbeddedServer(program, 1000) as embedded:
        server.make("idle")
        command = [program, "--non-interactive", "--loglevel", "error", "sync", "--namespace", "all", "--jobs-per-minute", "0"]
        command += ["--target", server.url("idle")]
        measure.run(command, env=embedded.environment)
        taken = []
        for _ in range(options.runs):
            before = cpu_seconds_of(server.process.pid)
            measured = measure.run(command, env=embedded.environment)
            measured.server_cpu_seconds = cpu_seconds_of(server.process.pid) - before
            taken.append(measured)
        results.add(f"{server.name}, sync of all tables without changes", "daplake", measure.median(taken), len(taken))
