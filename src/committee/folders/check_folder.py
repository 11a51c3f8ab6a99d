"""The folder of a check of a data set: the only place that knows the names of its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from committee import disk
from committee.errors import DataError
from committee.folders import files
from committee.names import csv_text


class CheckFolder:
    """The folder of a check: its page, a table of all findings, the record of its opening of the test images."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def begin(self) -> None:
        """Make the folder, or enter that of an earlier check, which is written over.

        Raises:
            DataError: it is a file, or holds something else.
        """
        if self.path.exists() and (not self.path.is_dir() or (any(self.path.iterdir()) and not self.page.exists())):
            raise DataError(
                f"{self.path}: a new folder, or that of an earlier check, is expected, and it holds something else; "
                "give another folder (--out)"
            )
        disk.make_folder(self.path)

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "check.html"

    @property
    def table(self) -> Path:
        """All findings, a row each."""
        return self.path / "findings.csv"

    @property
    def test_record(self) -> Path:
        """Where openings of the test images are noted, a line each."""
        return self.path / "test_record.jsonl"

    def write_page(self, text: str) -> None:
        """The page."""
        files.write_text(self.page, text)

    def write_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """All findings, a row each."""
        files.write_text(self.table, csv_text(columns, rows))
