"""The folder of a check of a data set: the only place that knows the names of its files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from committee.folders.page_folder import PageFolder


class CheckFolder(PageFolder):
    """The folder of a check: its page, a table of all findings, the record of its opening of the test images."""

    kind: ClassVar[str] = "check"
    page_name: ClassVar[str] = "check.html"
    table_name: ClassVar[str] = "findings.csv"

    @property
    def test_record(self) -> Path:
        """Where openings of the test images are noted, a line each."""
        return self.path / "test_record.jsonl"
