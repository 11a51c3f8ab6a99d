"""What the folders of a check and of an audit share: a page and a table, in a folder that holds nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from committee import disk
from committee.errors import DataError
from committee.folders import files
from committee.names import csv_text


class PageFolder:
    """A folder with a page and a table.

    Attributes:
        kind: what it is of, in a word.
        page_name, table_name: of its two files.
    """

    kind: ClassVar[str]
    page_name: ClassVar[str]
    table_name: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def begin(self) -> None:
        """Make the folder, or enter that of an earlier one of its kind, whose files are written over.

        Raises:
            DataError: it is a file, or holds something else.
        """
        if self.path.exists() and (not self.path.is_dir() or (any(self.path.iterdir()) and not self.page.exists())):
            raise DataError(
                f"{self.path}: a new folder, or that of an earlier {self.kind}, is expected, and it holds something "
                "else; give another folder (--out)"
            )
        disk.make_folder(self.path)

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / self.page_name

    @property
    def table(self) -> Path:
        """The table."""
        return self.path / self.table_name

    def write_page(self, text: str) -> None:
        """The page."""
        files.write_text(self.page, text)

    def write_table(self, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """The table."""
        files.write_text(self.table, csv_text(columns, rows))
