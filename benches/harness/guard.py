"""Compares the CPU time of two builds in turns; fails if the second needs more than the limit.

BEFORE and AFTER are commits, which are built here, or files of programs. Each case runs in turns, and the smallest CPU times are
compared, because other work on a machine only adds to them. Not for CI: shared machines vary more than the limit.
"""

import os
import shutil
import subprocess
import tempfile

from . import measure, programs, service
from .results import Results


def arguments(parser):
    parser.add_argument("before", metavar="BEFORE")
    parser.add_argument("after", metavar="AFTER")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of submissions; web_logs has five times as many (default: 300000)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=5.0, help="percent of CPU time that AFTER may need more (default: 5)")


def main(options):
    results = Results("guard", options.save)
    with tempfile.TemporaryDirectory() as work:
        built = {name: program(revision, work, name) for name, revision in (("before", options.before), ("after", options.after))}
        exceeded = []
        for namespace, table in (("canvas", "submissions"), ("canvas_logs", "web_logs")):
            for case, runs in measured(options, built, work, namespace, table).items():
                least = {name: min(taken, key=lambda run: run.cpu_seconds) for name, taken in runs.items()}
                for name in ("before", "after"):
                    results.add(case, name, least[name], runs=options.runs, baseline="before")
                if least["after"].cpu_seconds > least["before"].cpu_seconds * (1 + options.limit / 100):
                    exceeded.append(case)
    for case in exceeded:
        print(f"more than {options.limit:g} % more CPU time: {case}")
    return int(bool(exceeded))


def program(revision, work, name):
    """A program by its file, or built from a commit."""
    if os.path.isfile(revision) and os.access(revision, os.X_OK):
        return os.path.abspath(revision)
    tree, kept = os.path.join(work, f"tree-{name}"), os.path.join(work, f"daplake-{name}")
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, revision], cwd=programs.ROOT, check=True)
    try:
        shutil.copy2(programs.cargo("build", "--release", "--bin", "daplake", cwd=tree), kept)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=programs.ROOT, check=True)
    return kept


def measured(options, built, work, namespace, table):
    """First load, increment and a sync without changes, by both programs in turns."""
    cases = {f"{table}, {what}": {name: [] for name in built} for what in ("first load", "increment", "no changes")}
    port = service.free_port()
    # The server is the same for both: it is the one of the newer build, which has the options of this harness.
    for run in range(-1, options.runs):
        for commits, whats in ((1, ["first load"]), (2, ["increment", "no changes"])):
            with service.EmbeddedServer(built["after"], options.rows, commits, change_rate=0.05, port=port) as server:
                for name, file in built.items():
                    environment = {**server.environment, "DAPLAKE_STATE_DIR": os.path.join(work, f"state-{name}")}
                    target = os.path.join(work, f"{name}-{table}-{run}")
                    command = [file, "sync", "--target", target, "--namespace", namespace, "--table", table, "--jobs-per-minute", "0"]
                    for what in whats:
                        taken = measure.run([*command, "--temp-dir", work], env=environment)
                        # The first round fills the server's cache.
                        if run >= 0:
                            cases[f"{table}, {what}"][name].append(taken)
        for name in built:
            shutil.rmtree(os.path.join(work, f"{name}-{table}-{run}"), ignore_errors=True)
    return cases
