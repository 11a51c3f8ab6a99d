"""The folder of an audit: the only place that knows the names of its files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from committee.config.record import Record
from committee.folders import files
from committee.folders.page_folder import PageFolder


class AuditFolder(PageFolder):
    """The folder of an audit: its page, its table of suggestions, its figures; beside them what a person decides."""

    kind: ClassVar[str] = "audit"
    page_name: ClassVar[str] = "audit.html"
    table_name: ClassVar[str] = "suggestions.csv"

    @property
    def record(self) -> Path:
        """The figures of the audit."""
        return self.path / "audit.json"

    def write_record(self, record: Record) -> None:
        """The figures of the audit."""
        files.write_record(self.record, record)
