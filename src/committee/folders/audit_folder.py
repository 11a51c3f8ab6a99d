"""The folder of an audit of labels: the only place that knows the names of its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from committee import disk
from committee.config.record import Record
from committee.errors import DataError
from committee.folders import files
from committee.names import csv_text


class AuditFolder:
    """The folder of an audit: its page, its table of suggestions, its figures; beside them what a person decides."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def begin(self) -> None:
        """Make the folder, or enter that of an earlier audit, whose files are written over.

        Raises:
            DataError: it is a file, or holds something else.
        """
        if self.path.exists() and (not self.path.is_dir() or (any(self.path.iterdir()) and not self.page.exists())):
            raise DataError(
                f"{self.path}: a new folder, or that of an earlier audit, is expected, and it holds something else; "
                "give another folder (--out)"
            )
        disk.make_folder(self.path)

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "audit.html"

    @property
    def table(self) -> Path:
        """The suggestions, a row for each image."""
        return self.path / "suggestions.csv"

    @property
    def record(self) -> Path:
        """The figures of the audit."""
        return self.path / "audit.json"

    def write_page(self, text: str) -> None:
        """The page."""
        files.write_text(self.page, text)

    def write_table(self, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """The suggestions, a row for each image."""
        files.write_text(self.table, csv_text(columns, rows))

    def write_record(self, record: Record) -> None:
        """The figures of the audit."""
        files.write_record(self.record, record)
