"""The built programs, and Python environments with other tools."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "daplake"


def cargo(*arguments, cwd=ROOT):
    """Builds with cargo; the path of the last executable."""
    command = ["cargo", *arguments, "--locked", "--message-format=json-render-diagnostics"]
    output = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, check=True, text=True).stdout
    messages = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [message["executable"] for message in messages if message.get("executable")][-1]


def daplake(options, features=()):
    """The program: `--program`, or a release build."""
    if options.program:
        return os.path.abspath(options.program)
    return cargo("build", "--release", "--bin", "daplake", *(["--features", ",".join(features)] if features else []))


def steps(options):
    """The program with the single steps of the benchmarks (`benches/rust`): `--steps-program`, or a build with the bench profile."""
    if options.steps_program:
        return os.path.abspath(options.steps_program)
    return cargo("bench", "--no-run", "--bench", "measure")


def environment(name, requirements):
    """The Python of an environment with the packages of a list, created in the cache folder when the list changes."""
    place, wanted = CACHE / name, ROOT / "benches" / requirements
    installed = place / "installed.txt"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
        subprocess.run(pip, check=True)
        installed.write_bytes(wanted.read_bytes())
    return str(place / "bin" / "python")
