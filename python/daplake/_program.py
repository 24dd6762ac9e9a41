"""Finds the program and runs it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, TypeVar, Union

from ._errors import Error, Failure

Option = Union[None, bool, int, float, str, "os.PathLike[str]", Sequence[str]]
"""The value of an option of the program: `True` for a flag, a list for an option that can be repeated, `None` and `False` to leave it out."""

T = TypeVar("T")

log = logging.getLogger("daplake")
# Silent unless the application sets up logging.
log.addHandler(logging.NullHandler())

# Passed as variables, because other users of the machine can see the arguments of a process.
_VARIABLES = {
    "client_id": "DAP_CLIENT_ID",
    "client_secret": "DAP_CLIENT_SECRET",
    "target": "DAPLAKE_TARGET",
    "notify": "DAPLAKE_NOTIFY",
    "hash_key": "DAPLAKE_HASH_KEY",
}
# Set by this module, or without a meaning for a call that returns.
_RESERVED = {"every", "help", "jitter", "interval", "logformat", "non_interactive", "no_log_to_console", "output", "output_file", "report", "watch"}

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "WARN": logging.WARNING, "ERROR": logging.ERROR}
# Time for running loads to be rolled back when the call is interrupted, in seconds.
_GRACE = 30


def program() -> str:
    """The path of the program: `DAPLAKE_PROGRAM` if it is set, else that of this package, else the first on `PATH`."""
    if given := os.environ.get("DAPLAKE_PROGRAM"):
        return given
    name = "daplake.exe" if os.name == "nt" else "daplake"
    for folder in _folders():
        if (path := folder / name).is_file():
            return str(path)
    if found := shutil.which("daplake"):
        return found
    raise FileNotFoundError("The program daplake is not installed beside this package and is not on PATH; set DAPLAKE_PROGRAM to its path")


def _folders() -> Iterator[Path]:
    """Where installers put scripts: of this environment, of the user, and beside the package (`pip install --target`)."""
    yield Path(sysconfig.get_path("scripts"))
    if sys.version_info >= (3, 10):
        user = sysconfig.get_preferred_scheme("user")
    else:
        user = "nt_user" if os.name == "nt" else "posix_user"
    yield Path(sysconfig.get_path("scripts", scheme=user))
    yield Path(__file__).parent.parent / "bin"


def arguments(options: Mapping[str, Option]) -> List[str]:
    """Keyword arguments as options of the command line; `memory_limit="2GB"` is `--memory-limit=2GB`."""
    words = []
    for name, value in options.items():
        if name in _RESERVED:
            raise TypeError(f"the option {name!r} is not available from Python")
        option = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, (str, int, float, os.PathLike)):
            words.append(f"{option}={_text(value)}")
        else:
            words += [f"{option}={_text(item)}" for item in value]
    return words


def variables(values: Mapping[str, Option], env: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """The environment of the program."""
    environment = {**os.environ, **(env or {})}
    for name, value in values.items():
        if value is not None:
            environment[_VARIABLES[name]] = _text(value)
    return environment


def split(options: Mapping[str, Option]) -> "tuple[Dict[str, Option], Dict[str, Option]]":
    """Options that go into the environment, and the other ones."""
    secret = {name: value for name, value in options.items() if name in _VARIABLES}
    return secret, {name: value for name, value in options.items() if name not in _VARIABLES}


def comma_list(value: Union[None, str, Sequence[str]]) -> Optional[str]:
    """A list of names as the program takes it."""
    return value if value is None or isinstance(value, str) else ",".join(value)


def _text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    failure: Failure
    """What it reported last, or that it reported nothing."""


def run(
    command: str,
    options: Mapping[str, Option],
    env: Optional[Mapping[str, str]],
    read: Callable[[IO[bytes]], T],
    text: str = "",
    words: Sequence[str] = (),
) -> "tuple[Ended, T]":
    """Runs a command of the program with `text` on its standard input. `read` reads its standard output, to the end. Log lines go to the
    logger `daplake`.
    """
    secret, plain = split(options)
    line = [program(), command, "--non-interactive", "--logformat=json", *arguments(plain), *words]
    process = subprocess.Popen(
        line, env=variables(secret, env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=-1
    )
    assert process.stdin and process.stdout and process.stderr
    messages = _Messages(process.stderr)
    try:
        try:
            with process.stdin as to:
                to.write(text.encode())
        except BrokenPipeError:
            # It has ended; its exit code and its messages say why.
            pass
        with process.stdout as output:
            result = read(output)
            while output.read(1 << 16):
                pass
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        messages.join()
    return Ended(code, messages.failure(code)), result


def failed(ended: Ended) -> Error:
    """The exception for a command that failed."""
    return Error(ended.failure, ended.code)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the program. It removes its temporary files and rolls back what it has begun, if it has the time."""
    if os.name == "posix":
        process.terminate()
    # On Windows the console has sent it the same ctrl-c.
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


class _Messages(threading.Thread):
    """Reads the log of the program, one JSON object per line, and passes it on."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="daplake-log", daemon=True)
        self._stream = stream
        self._failure: Optional[Failure] = None
        # What is no JSON: messages of the argument parser.
        self._plain: List[str] = []
        self.start()

    def run(self) -> None:
        with self._stream:
            for line in self._stream:
                self._take(line.decode(errors="replace").rstrip("\r\n"))

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            level, message = entry["level"], entry["message"]
        except (ValueError, TypeError, KeyError):
            if line:
                self._plain.append(line)
            return
        if entry.get("logger_name") == "daplake::failure":
            self._failure = Failure._of(entry.get("fields") or {})
        log.log(_LEVELS.get(level, logging.INFO), "%s", message)

    def failure(self, code: int) -> Failure:
        if self._failure is not None and not self._plain:
            return self._failure
        if self._plain:
            message = "\n".join(self._plain)
            return Failure(kind="usage" if code == 2 else "bug", message=message.replace("error: ", "", 1))
        return Failure(kind="bug", message=f"daplake ended with code {code} without a message")
