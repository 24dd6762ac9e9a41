"""The report of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Mapping, Optional, Tuple

from ._errors import Failure


@dataclass(frozen=True)
class TableReport:
    """The outcome of one table."""

    table: str
    """`namespace.table`; `namespace.*` for a namespace that could not be listed."""
    outcome: str
    """`loaded`, `unchanged`, `recent` (too young to have changed), `put_off` (deferred to the next run), `failed` or `skipped`."""
    query: Optional[str] = None
    """For `loaded`: `snapshot` or `increment`."""
    upserted: int = 0
    """Upserts, after deduplication."""
    deleted: int = 0
    """Rows that deletes removed."""
    rows: Optional[int] = None
    """Rows of the table after the load, if the target knows them."""
    objects: int = 0
    """Downloaded objects."""
    bytes_written: int = 0
    bad_rows: int = 0
    """Unreadable rows that were set aside."""
    bookmark: Optional[datetime] = None
    """The time that the data is as of."""
    schema_version: Optional[int] = None
    schema_changes: Tuple[str, ...] = ()
    reason: Optional[str] = None
    """For `put_off`: `stopped` or `time_budget`."""
    failure: Optional[Failure] = None
    """For `failed`: why. The table was not changed."""
    job_id: Optional[str] = None
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `job`, `load` and `commit`."""
    warnings: Tuple[str, ...] = ()

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> TableReport:
        outcome = data["outcome"]
        return cls(
            table=data["table"],
            outcome=outcome,
            query=data.get("query"),
            upserted=data.get("upserted", 0),
            deleted=data.get("deleted", 0),
            rows=data.get("rows"),
            objects=data.get("objects", 0),
            bytes_written=data.get("bytes_written", 0),
            bad_rows=data.get("bad_rows", 0),
            bookmark=_time(data["bookmark"]) if "bookmark" in data else None,
            schema_version=data.get("schema_version"),
            schema_changes=tuple(data.get("schema_changes") or ()),
            reason=data.get("reason"),
            failure=Failure._of(data) if outcome == "failed" else None,
            job_id=data.get("job_id"),
            phases=data.get("phases") or {},
            warnings=tuple(data.get("warnings") or ()),
        )


@dataclass(frozen=True)
class Report:
    """The outcome of a run for one target."""

    run_id: str
    started: datetime
    seconds: float
    """Wall time."""
    target: str
    """Location of the target, without password; empty if it could not be opened."""
    tables: Tuple[TableReport, ...]
    """The tables, in the order of the selection."""
    failure: Optional[Failure] = None
    """Why the run could not start; there are no tables then."""
    warnings: Tuple[str, ...] = ()
    """Warnings about the run as a whole."""
    ended_early: Optional[str] = None
    """`stopped` or `time_budget` if the run ended before all tables were tried."""
    json: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The report as the program wrote it. It may have members that this class lacks."""

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Report:
        failure = data.get("failure")
        return cls(
            run_id=data["run_id"],
            started=_time(data["started"]),
            seconds=data["seconds"],
            target=data["target"],
            tables=tuple(TableReport._of(table) for table in data["tables"]),
            failure=Failure._of(failure) if failure else None,
            warnings=tuple(data.get("warnings") or ()),
            ended_early=data.get("ended_early"),
            json=data,
        )

    def with_outcome(self, outcome: str) -> Tuple[TableReport, ...]:
        """The tables with an outcome, such as `loaded`."""
        return tuple(table for table in self.tables if table.outcome == outcome)

    @property
    def failed(self) -> Tuple[TableReport, ...]:
        """The tables that failed."""
        return self.with_outcome("failed")

    def __getitem__(self, table: str) -> TableReport:
        """The outcome of a table, by its full name."""
        for line in self.tables:
            if line.table == table:
                return line
        raise KeyError(table)


def _time(text: str) -> datetime:
    """A time in UTC, such as `2026-01-31T09:30:00.25Z`."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z", text)
    if not match:
        raise ValueError(f"not a time of the program: {text!r}")
    whole, fraction = match.groups()
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    return datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(microsecond=micros, tzinfo=timezone.utc)
