"""Private database servers with default settings, and the bare statements that daplake is compared with."""

import glob
import os
import shutil
import signal
import subprocess
import time

from .service import free_port


def program(*names):
    folders = os.environ["PATH"].split(":") + ["/usr/sbin"] + glob.glob("/usr/lib/postgresql/*/bin")
    for name in names:
        for folder in folders:
            if os.access(os.path.join(folder, name), os.X_OK):
                return os.path.join(folder, name)
    raise SystemExit(f"{names[0]} is not installed")


def unprivileged(folder):
    """The prefix of a command that runs as an unprivileged user: the servers refuse to run as root."""
    if os.getuid() != 0:
        return []
    shutil.chown(folder, "nobody")
    group = subprocess.check_output(["id", "-g", "nobody"], text=True).strip()
    return ["setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups"]


def started(command, folder, is_ready):
    log = open(f"{folder}/server.txt", "w")
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    while not is_ready():
        if process.poll() is not None:
            raise SystemExit(open(f"{folder}/server.txt").read())
        time.sleep(0.1)
    return process


class Postgres:
    """PostgreSQL, stopped by `stop`."""

    name = "PostgreSQL"

    def __init__(self, folder):
        self.folder, self.port, run = folder, free_port(), unprivileged(folder)
        made = [program("initdb"), "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C.UTF-8", "-D", f"{folder}/data"]
        subprocess.run(run + made, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        command = [program("postgres"), "-D", f"{folder}/data", "-p", str(self.port), "-c", f"unix_socket_directories={folder}"]
        ready = [program("pg_isready"), "-q", "-h", folder, "-p", str(self.port)]
        self.process = started(run + command, folder, lambda: subprocess.call(ready) == 0)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def url(self, database):
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def command(self, database, script):
        command = [program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port)]
        return command + ["-U", "bench", "-d", database, "-f", script]

    def table(self, table):
        return table

    def other(self, what, table):
        return f'"{what} {table}"'

    def columns(self, table):
        """All columns, and the columns of the key."""
        listed = f"""SELECT quote_ident(attname), COALESCE(attnum = ANY (indkey), false) FROM pg_attribute LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary
            WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
        lines = [line.split("|") for line in self.sql("warm", listed).splitlines()]
        return [name for name, _ in lines], [name for name, key in lines if key == "t"]

    def create_like(self, new, table):
        return f"CREATE TABLE {new} (LIKE {table} INCLUDING ALL)"

    def references(self, table):
        """The foreign keys of a table, as clauses for another table."""
        listed = f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'f'"
        return self.sql("warm", listed).splitlines()

    def write(self, select, file):
        return f"COPY ({select}) TO '{file}' (FORMAT csv)"

    def load(self, table, file):
        return f"COPY {table} FROM '{file}' (FORMAT csv)"

    def quiet(self):
        self.sql("warm", "CHECKPOINT")

    def make(self, database):
        self.sql("postgres", f"CREATE DATABASE {database}")

    def differ(self, columns):
        return "a.*::text IS DISTINCT FROM b.*::text"

    def merge(self, target, table, columns, key, changed, gone):
        own = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name not in key)
        keys = ", ".join(key)
        return f"""BEGIN;
            CREATE TEMPORARY TABLE stage (LIKE {table}) ON COMMIT DROP;
            CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT {keys} FROM {table} LIMIT 0;
            {self.load("stage", changed)}; {self.load("gone", gone)}; ANALYZE stage; ANALYZE gone;
            INSERT INTO {target} SELECT * FROM stage ON CONFLICT ({keys}) DO UPDATE SET {own};
            DELETE FROM {target} t USING gone WHERE {" AND ".join(f"t.{name} = gone.{name}" for name in key)};
            COMMIT"""

    def sql(self, database, text):
        return query(self, database, text)


class MariaDb:
    """MariaDB, stopped by `stop`."""

    name = "MariaDB"

    def __init__(self, folder):
        self.folder, self.port, run = folder, free_port(), unprivileged(folder)
        made = [program("mariadb-install-db"), "--no-defaults", f"--datadir={folder}/data", "--skip-test-db"]
        made += ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
        # The TMPDIR of the user who runs the benchmark may not be writable for the server.
        subprocess.run(run + made, cwd=folder, env={**os.environ, "TMPDIR": folder}, stdout=subprocess.DEVNULL, check=True)
        command = [program("mariadbd", "mysqld"), "--no-defaults", f"--datadir={folder}/data", f"--port={self.port}"]
        command += [f"--socket={folder}/s", f"--tmpdir={folder}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        open(f"{folder}/ready", "w").write("DO 0")
        ready = self.command("", f"{folder}/ready")
        quietly = {"stderr": subprocess.DEVNULL, "stdin": open(f"{folder}/ready")}
        self.process = started(run + command, folder, lambda: subprocess.call(ready, **quietly) == 0)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def url(self, database):
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def command(self, database, script):
        command = [program("mariadb"), "--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
        command += [f"--socket={self.folder}/s", "--user=root"] + ([database] if database else [])
        return command + ["-e", f"source {script}"]

    def table(self, table):
        return "`" + table.replace(".", "__") + "`"

    def other(self, what, table):
        return f"`{what} {table}`"

    def columns(self, table):
        listed = f"""SELECT CONCAT('`', COLUMN_NAME, '`'), COLUMN_KEY = 'PRI' FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = 'warm' AND TABLE_NAME = '{table.strip("`")}' ORDER BY ORDINAL_POSITION"""
        lines = [line.split("\t") for line in self.sql("warm", listed).splitlines()]
        return [name for name, _ in lines], [name for name, key in lines if key == "1"]

    def create_like(self, new, table):
        return f"CREATE TABLE {new} LIKE {table}"

    def references(self, table):
        listed = f"""SELECT CONCAT('FOREIGN KEY (`', COLUMN_NAME, '`) REFERENCES `', REFERENCED_TABLE_NAME, '` (`', REFERENCED_COLUMN_NAME, '`)')
            FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = 'warm' AND TABLE_NAME = '{table.strip("`")}' AND REFERENCED_TABLE_NAME IS NOT NULL"""
        return self.sql("warm", listed).splitlines()

    def write(self, select, file):
        return f"SELECT * FROM ({select}) AS rows_of INTO OUTFILE '{file}' CHARACTER SET binary"

    def load(self, table, file):
        return f"LOAD DATA INFILE '{file}' INTO TABLE {table} CHARACTER SET binary"

    def quiet(self):
        self.sql("warm", "FLUSH TABLES")

    def make(self, database):
        self.sql("", f"CREATE DATABASE {database} CHARACTER SET utf8mb4")

    def differ(self, columns):
        return "NOT (" + " AND ".join(f"a.{name} <=> b.{name}" for name in columns) + ")"

    def merge(self, target, table, columns, key, changed, gone):
        own = ", ".join(f"{name} = VALUES({name})" for name in columns if name not in key)
        keys = ", ".join(key)
        return f"""CREATE TEMPORARY TABLE stage LIKE {table};
            CREATE TEMPORARY TABLE gone AS SELECT {keys} FROM {table} LIMIT 0;
            BEGIN;
            {self.load("stage", changed)}; {self.load("gone", gone)};
            INSERT INTO {target} SELECT * FROM stage ON DUPLICATE KEY UPDATE {own};
            DELETE t FROM {target} t JOIN gone ON {" AND ".join(f"t.{name} = gone.{name}" for name in key)};
            COMMIT"""

    def sql(self, database, text):
        return query(self, database, text)


def script_of(server, text):
    script = f"{server.folder}/script.sql"
    with open(script, "w") as file:
        file.write(text + ";\n")
    return script


def query(server, database, text):
    return subprocess.check_output(server.command(database, script_of(server, text)), text=True)
