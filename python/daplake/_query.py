"""`query`: SQL over lake tables."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Mapping, Optional, Union

from ._program import Option, failed, run

if TYPE_CHECKING:
    import pyarrow


def query(
    sql: str,
    target: Union[None, str, "os.PathLike[str]"] = None,
    *,
    to: Optional[str] = None,
    at: Union[None, int, str] = None,
    limit: Optional[int] = None,
    settings: Union[None, str, "os.PathLike[str]"] = None,
    env: Optional[Mapping[str, str]] = None,
    **options: Option,
) -> pyarrow.Table:
    """Runs one SQL statement over the tables of a lake and returns its rows. Needs pyarrow: `pip install daplake[arrow]`.

    Args:
        sql: A statement in DataFusion's dialect. Tables are `namespace.table`; those of `canvas` also have their bare names.
        target: A folder or the URL of an object store; default: `DAPLAKE_TARGET`, else the only target of the settings file.
        to: Name of a target of the settings file, in place of `target`.
        at: Version of the log, or a time such as `2026-01-31T09:30:00Z`, as of which tables are read.
        limit: Largest number of rows.
        settings: Settings file.
        env: Variables for the program besides those of this process, such as `AWS_PROFILE`.
        options: Other options of `daplake query`, with `_` in place of `-`: `memory_limit="2GB"`.

    Raises:
        Error: The statement is wrong, or the target cannot be read.
        ImportError: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowInvalid, ipc
    except ImportError as error:
        raise ImportError("daplake.query needs pyarrow: pip install 'daplake[arrow]'") from error

    def read(output: IO[bytes]) -> Optional[pyarrow.Table]:
        try:
            with ipc.open_stream(output) as stream:
                table = stream.read_all()
        except (ArrowInvalid, OSError):
            # The program failed before the end of the stream; its exit code tells.
            return None
        if output.read(1):
            raise ValueError("sql must be a single statement")
        return table

    given = {"target": target, "to": to, "at": at, "limit": limit, "settings": settings, **options}
    ended, table = run("query", given, env, read, text=sql, words=["--output=arrow-stream", "-"])
    if ended.code != 0 or table is None:
        raise failed(ended)
    return table
