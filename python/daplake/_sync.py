"""`sync`: brings tables up to date."""

from __future__ import annotations

import json
import os
from typing import IO, List, Mapping, Optional, Sequence, Tuple, Union

from ._errors import Failure, SyncError
from ._program import Ended, Option, comma_list, failed, run
from ._report import Report

_Names = Union[None, str, Sequence[str]]
_Path = Union[None, str, "os.PathLike[str]"]
# Failed tables that a message names.
_NAMED = 5


def sync(
    target: _Path = None,
    *,
    to: Optional[str] = None,
    tables: _Names = None,
    namespaces: _Names = None,
    exclude: _Names = None,
    settings: _Path = None,
    client_id: Optional[str] = None,
    client_secret: Optional[str] = None,
    env: Optional[Mapping[str, str]] = None,
    check: bool = True,
    **options: Option,
) -> Report:
    """Brings the tables of one target up to date and returns the report of the run.

    An interrupted call is safe: each table is in its old or its new state, and the next call resumes its jobs.

    Args:
        target: A folder, or the URL of an object store or a database; default: `DAPLAKE_TARGET`.
        to: Name of a target of the settings file, in place of `target`.
        tables: Names of tables; `*` and `?` are patterns; `namespace.table` where several namespaces have a table of that name. Default: all.
        namespaces: Namespaces; default: all.
        exclude: Tables to leave out.
        settings: Settings file; default: as for the command line.
        client_id: Client id of the API key; default: `DAP_CLIENT_ID`, else that of the settings file.
        client_secret: Client secret of the API key, likewise. It is passed to the program as a variable, not as an argument.
        env: Variables for the program besides those of this process, such as `AWS_PROFILE`.
        check: Raise `SyncError` if tables fail. Otherwise the report contains the failures.
        options: Other options of `daplake sync`, with `_` in place of `-`: `mode="history"`, `resnapshot=True`, `drop_column=["users.sis_*"]`.

    Raises:
        SyncError: The run could not start, was interrupted, or tables failed; `.report` has the report.
        Error: Wrong usage, such as an unknown option.
    """
    if target is None and to is None and not {**os.environ, **(env or {})}.get("DAPLAKE_TARGET"):
        raise TypeError("sync() needs a target: a path or URL as target, or as to the name of a target of the settings file")
    if to is not None and "," in to:
        raise ValueError("sync() has a single target; use sync_all() for several")
    given = {"target": target, "to": to, "table": comma_list(tables), "namespace": comma_list(namespaces), "exclude": comma_list(exclude)}
    account = {"settings": settings, "client_id": client_id, "client_secret": client_secret}
    (report,) = _run({**given, **account, **options}, env, check)
    return report


def sync_all(
    *,
    to: _Names = None,
    settings: _Path = None,
    client_id: Optional[str] = None,
    client_secret: Optional[str] = None,
    env: Optional[Mapping[str, str]] = None,
    check: bool = True,
    **options: Option,
) -> List[Report]:
    """Brings all targets of the settings file up to date, or those named by `to`, one after the other.

    Arguments, options and exceptions are those of `sync`. Returns one report for each target.
    """
    account = {"settings": settings, "client_id": client_id, "client_secret": client_secret}
    return list(_run({"to": comma_list(to), **account, **options}, env, check))


def _run(options: Mapping[str, Option], env: Optional[Mapping[str, str]], check: bool) -> Tuple[Report, ...]:
    ended, output = run("sync", options, env, _read, words=["--report=-"])
    if not output.strip():
        raise failed(ended)
    data = json.loads(output)
    reports = tuple(Report._of(report) for report in (data if isinstance(data, list) else [data]))
    if check and ended.code != 0:
        raise SyncError(_failure(ended, reports), ended.code, reports)
    return reports


def _read(output: IO[bytes]) -> bytes:
    return output.read()


def _failure(ended: Ended, reports: Sequence[Report]) -> Failure:
    """The failure of a run in one message: why it did not start, or the tables that failed."""
    for report in reports:
        if report.failure:
            return report.failure
    tables = [table for report in reports for table in report.tables]
    wrong = [(table.table, table.failure) for table in tables if table.failure]
    if not wrong:
        return ended.failure
    first = wrong[0][1]
    causes = [f"{name}: {failure.message}" for name, failure in wrong[:_NAMED]]
    causes += [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
    return Failure(first.kind, f"{len(wrong)} of {len(tables)} tables failed", causes=tuple(causes), hint=first.hint)
