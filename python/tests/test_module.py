"""Tests of the module against a running `daplake serve`: `python -m unittest discover python/tests`.

Needs the variables that `daplake serve` prints, for a school of at least 100 rows. Tests of `query` are skipped without pyarrow.
"""

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import unittest
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import daplake
from daplake import _program, _report

HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
TABLES = ["users", "canvas.courses"]
FAST = {"jobs_per_minute": 0}


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.lake = self.folder / "lake"
        patch = mock.patch.dict(os.environ, {"DAPLAKE_STATE_DIR": str(self.folder / "state")})
        patch.start()
        self.addCleanup(patch.stop)
        for name in ("DAPLAKE_TARGET", "DAPLAKE_SETTINGS"):
            os.environ.pop(name, None)

    def sync(self, **options):
        return daplake.sync(self.lake, tables=TABLES, **{**FAST, **options})


class Sync(Case):
    def test_a_run_returns_its_report(self):
        report = self.sync()
        self.assertEqual([table.table for table in report.tables], ["canvas.courses", "canvas.users"])
        users = report["canvas.users"]
        self.assertEqual((users.outcome, users.query), ("loaded", "snapshot"))
        self.assertGreater(users.upserted, 0)
        self.assertEqual(users.upserted, users.rows)
        self.assertEqual(users.bookmark.tzinfo, timezone.utc)
        self.assertEqual(report.failed, ())
        self.assertIn("commit", users.phases)
        self.assertLess(abs((datetime.now(timezone.utc) - report.started).total_seconds()), 600)
        with self.assertRaises(KeyError):
            report["canvas.nosuch"]
        self.assertEqual({table.outcome for table in self.sync().tables}, {"unchanged"})

    def test_a_failed_table_raises_and_the_others_are_loaded(self):
        with self.assertRaises(daplake.SyncError) as caught:
            daplake.sync(self.lake, namespaces="canvas", tables=["users", "nosuch"], **FAST)
        error = caught.exception
        self.assertEqual((error.exit_code, error.kind), (5, "not_found"))
        self.assertIn("1 of 2 tables failed", str(error))
        self.assertIn("canvas.nosuch: ", str(error))
        self.assertEqual(error.report["canvas.users"].outcome, "loaded")
        report = daplake.sync(self.lake, namespaces="canvas", tables="users,nosuch", check=False, **FAST)
        (failed,) = report.failed
        self.assertEqual((failed.table, failed.failure.kind), ("canvas.nosuch", "not_found"))
        self.assertTrue(failed.failure.hint)

    def test_a_run_that_cannot_start_raises(self):
        with self.assertRaises(daplake.SyncError) as caught:
            self.sync(client_secret="wrong")
        self.assertEqual(caught.exception.kind, "auth")
        self.assertEqual(caught.exception.report.tables, ())
        self.assertEqual(caught.exception.report.failure.kind, "auth")

    def test_wrong_usage_raises_with_the_message_of_the_program(self):
        with self.assertRaises(daplake.Error) as caught:
            self.sync(jobs_per_second=1)
        self.assertNotIsInstance(caught.exception, daplake.SyncError)
        self.assertEqual((caught.exception.exit_code, caught.exception.kind), (2, "usage"))
        self.assertIn("--jobs-per-second", str(caught.exception))
        for name in ("report", "watch", "logformat"):
            with self.assertRaisesRegex(TypeError, name):
                self.sync(**{name: "x"})
        with self.assertRaisesRegex(TypeError, "target"):
            daplake.sync()
        with self.assertRaisesRegex(ValueError, "sync_all"):
            daplake.sync(to="a,b")

    def test_targets_of_the_settings_file(self):
        settings = self.folder / "daplake.toml"
        settings.write_text('[targets.first]\nurl = "one"\n[targets.second]\nurl = "two"\nformat = "parquet"\n')
        options = {"settings": settings, "table": "users", **FAST}
        self.assertEqual(daplake.sync(to="second", **options)["canvas.users"].outcome, "loaded")
        reports = daplake.sync_all(**options)
        self.assertEqual([report["canvas.users"].outcome for report in reports], ["loaded", "unchanged"])
        self.assertEqual([Path(report.target).name for report in reports], ["one", "two"])

    def test_the_log_goes_to_the_logger(self):
        with self.assertLogs("daplake", logging.INFO) as logs:
            self.sync()
        self.assertTrue(any("Table loaded" in line for line in logs.output), logs.output)

    def test_secrets_are_no_arguments(self):
        secrets = {"client_secret": "PLANTED-1", "notify": "https://PLANTED-2", "hash_key": "PLANTED-3"}
        with mock.patch.object(_program.subprocess, "Popen", side_effect=OSError) as popen, self.assertRaises(OSError):
            daplake.sync("postgresql://u:PLANTED-4@host/db", **secrets)
        (line,), options = popen.call_args
        self.assertNotIn("PLANTED", " ".join(line))
        names = ("DAPLAKE_TARGET", "DAP_CLIENT_SECRET", "DAPLAKE_NOTIFY", "DAPLAKE_HASH_KEY")
        self.assertTrue(all("PLANTED" in options["env"][name] for name in names))
        self.assertFalse(options.get("shell"))

    def test_an_interrupted_call_ends_the_program(self):
        started = []
        original = subprocess.Popen

        def popen(*arguments, **options):
            started.append(original(*arguments, **options))
            return started[-1]

        with mock.patch.object(_program.subprocess, "Popen", popen):
            with mock.patch.object(_report.Report, "_of"), self.assertRaises(KeyboardInterrupt):
                _program.run("sync", {"target": self.lake, **FAST}, None, mock.Mock(side_effect=KeyboardInterrupt))
        self.assertIsNotNone(started[0].returncode)


@unittest.skipUnless(HAS_ARROW, "pyarrow is not installed")
class Query(Case):
    def test_rows_come_as_a_table(self):
        users = self.sync()["canvas.users"].rows
        table = daplake.query("SELECT id, name, created_at FROM users ORDER BY id", self.lake)
        self.assertEqual((table.num_rows, table.column_names), (users, ["id", "name", "created_at"]))
        self.assertEqual([str(field.type) for field in table.schema], ["int64", "string", "timestamp[us, tz=UTC]"])
        self.assertEqual(table.column("id").to_pylist(), sorted(table.column("id").to_pylist()))
        self.assertEqual(daplake.query("SELECT * FROM users", self.lake, limit=3).num_rows, 3)
        self.assertEqual(daplake.query("SELECT id FROM users WHERE false", self.lake).schema.names, ["id"])
        at = daplake.query("SELECT count(*) AS n FROM users", self.lake, at=0)
        self.assertEqual(at.column("n").to_pylist(), [users])

    def test_values_survive_the_shell_and_the_pipe(self):
        self.sync()
        text = "-- quotes: ' \" $HOME `x` \u00e4\u20ac\U0001f600"
        table = daplake.query("-- a comment\nSELECT '" + text.replace("'", "''") + "' AS text", self.lake)
        self.assertEqual(table.column("text").to_pylist(), [text])
        rows = daplake.query("SELECT a.value AS n FROM generate_series(1, 300000) AS a", self.lake)
        self.assertEqual(rows.num_rows, 300000)

    def test_errors_have_message_and_hint(self):
        self.sync()
        with self.assertRaises(daplake.Error) as caught:
            daplake.query("SELECT * FROM nosuch", self.lake)
        self.assertEqual((caught.exception.kind, caught.exception.exit_code), ("usage", 5))
        self.assertIn("nosuch", str(caught.exception))
        self.assertIn("hint: ", str(caught.exception))
        # An error after the first rows.
        with self.assertRaises(daplake.Error):
            daplake.query("SELECT 1 / (150000 - a.value) FROM generate_series(1, 300000) AS a", self.lake)
        with self.assertRaisesRegex(ValueError, "single statement"):
            daplake.query("SELECT 1; SELECT 2", self.lake)


class Program(unittest.TestCase):
    def test_options_are_those_of_the_command_line(self):
        options = {"memory_limit": "2GB", "resnapshot": True, "fresh": False, "bad_rows": Path("x"), "drop_column": ["a.b", "c.d"], "temp_dir": None}
        words = ["--memory-limit=2GB", "--resnapshot", "--bad-rows=x", "--drop-column=a.b", "--drop-column=c.d"]
        self.assertEqual(_program.arguments(options), words)

    def test_times_are_read_to_the_microsecond(self):
        for text, micros in (("2026-01-31T09:30:00Z", 0), ("2026-01-31T09:30:00.25Z", 250_000), ("2026-01-31T09:30:00.1234567Z", 123_456)):
            self.assertEqual(_report._time(text), datetime(2026, 1, 31, 9, 30, 0, micros, timezone.utc))

    def test_the_command_line_runs_as_a_module(self):
        done = subprocess.run([sys.executable, "-m", "daplake", "--version"], stdout=subprocess.PIPE, check=True)
        self.assertRegex(done.stdout.decode(), r"^daplake \d")
        self.assertEqual(subprocess.run([sys.executable, "-m", "daplake", "--nosuch"], stderr=subprocess.DEVNULL).returncode, 2)

    def test_a_missing_program_is_named(self):
        with mock.patch.object(_program, "_folders", return_value=[]), mock.patch.dict(os.environ, {"PATH": ""}):
            os.environ.pop("DAPLAKE_PROGRAM", None)
            with self.assertRaisesRegex(FileNotFoundError, "DAPLAKE_PROGRAM"):
                daplake.program()


if __name__ == "__main__":
    unittest.main()
