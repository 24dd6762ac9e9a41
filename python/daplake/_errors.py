"""Failures of the program as exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Mapping, Optional, Tuple

if TYPE_CHECKING:
    from ._report import Report


@dataclass(frozen=True)
class Failure:
    """Why a command or a table failed."""

    kind: str
    """Stable name of the kind of error, such as `auth` or `unavailable`; the page on exit codes lists them."""
    message: str
    context: Mapping[str, Any] = field(default_factory=dict)
    """Names and values, such as the table."""
    causes: Tuple[str, ...] = ()
    """Causes, outermost first."""
    hint: Optional[str] = None
    """What to do next."""

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Failure:
        return cls(
            kind=data.get("kind", "bug"),
            message=data.get("message", ""),
            context=data.get("context") or {},
            causes=tuple(data.get("causes") or ()),
            hint=data.get("hint"),
        )

    def __str__(self) -> str:
        context = ", ".join(f"{name}: {value}" for name, value in self.context.items())
        lines = [f"{self.message} ({context})" if context else self.message]
        lines += [f"caused by: {cause}" for cause in self.causes]
        lines += [f"hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)


class Error(Exception):
    """The program failed. The text of the exception is message, causes and hint."""

    def __init__(self, failure: Failure, exit_code: int) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.exit_code = exit_code
        """2 for wrong usage, 5 for a failure, 38 if something is not supported, 125 if the run was interrupted; negative for a signal."""

    @property
    def kind(self) -> str:
        """Stable name of the kind of error, such as `auth`."""
        return self.failure.kind


class SyncError(Error):
    """A run that could not start, was interrupted, or in which tables failed. The other tables are up to date."""

    def __init__(self, failure: Failure, exit_code: int, reports: Tuple[Report, ...]) -> None:
        super().__init__(failure, exit_code)
        self.reports = reports
        """One report for each target of the run."""

    @property
    def report(self) -> Report:
        """The report of the run, of the first target if there are several."""
        return self.reports[0]
