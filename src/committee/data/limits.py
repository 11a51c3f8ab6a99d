"""How large a file with images may be, and what is in it: compared with what headers announce, before memory is taken.

Files of data are not trusted: a few bytes can announce, or unpack to, more than any memory holds. Every reader asks
here, and whoever trusts a larger file raises the limit that the message names, in the environment variable
``COMMITTEE_LIMITS``, such as ``COMMITTEE_LIMITS=bytes=16000000000,pixels=100000000``.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Literal

from committee.errors import DataError, nearest

VARIABLE = "COMMITTEE_LIMITS"

SMALL = 32 * 2**20
"""Bytes to which any file may unpack, however small it is."""

Limit = Literal["bytes", "expansion", "files", "images", "classes", "columns", "line", "encoded", "pixels"]


@dataclass(frozen=True)
class Limits:
    """The most that is read.

    Attributes:
        bytes: of a data set once decoded, of a zip once unpacked, of a file that is read whole.
        expansion: times its size to which a compressed file may unpack; below `SMALL` bytes it may always.
        files: in a folder or zip.
        images: in an array or table.
        classes: of a data set.
        columns: of a table, numbers of an image in a line.
        line: bytes of a line of text.
        encoded: bytes of an image file, or of an encoded image in a table.
        pixels: of an image file.
    """

    bytes: int = 8 * 2**30
    expansion: int = 200
    files: int = 2_000_000
    images: int = 10_000_000
    classes: int = 100_000
    columns: int = 250_000
    line: int = 4 * 2**20
    encoded: int = 128 * 2**20
    pixels: int = 64_000_000

    def check(self, limit: Limit, got: int, where: str, what: str, advice: str = "") -> None:
        """Compare a size with a limit.

        Args:
            limit: which one.
            got: what a header announces, or what was counted.
            where: the file, for messages.
            what: is limited, as in "at most 64,000,000 pixels of an image are read".
            advice: what may be done instead of raising the limit, such as "shrink it".

        Raises:
            DataError: it is more.
        """
        most = int(getattr(self, limit))
        if got > most:
            instead = f"{advice}, or if you trust it" if advice else "if you trust it"
            raise DataError(
                f"{where}: at most {most:,} {what} are read, got {got:,}; {instead}, set "
                f"{VARIABLE}={self.raised(limit, got)}"
            )

    def unpacked(self, packed: int) -> int:
        """The bytes to which so many bytes of a compressed file may unpack."""
        return min(max(packed * self.expansion, SMALL), self.bytes)

    def check_unpacked(self, got: int, packed: int, where: str) -> None:
        """Compare the bytes to which a file unpacks with the bytes that it has.

        Raises:
            DataError: they are over the limit `bytes`, or over the limit `expansion`.
        """
        self.check("bytes", got, where, "bytes", "give a part of it")
        if got > self.unpacked(packed):
            times = -(-got // max(packed, 1))
            raise DataError(
                f"{where}: files that unpack to at most {self.expansion:,} times their size are read, got {packed:,} "
                f"bytes that unpack to {got:,} or more; if you trust it, set {VARIABLE}="
                f"{self.raised('expansion', times)}"
            )

    def raised(self, limit: Limit, to: int) -> str:
        """What the environment variable must say for this limit to be so high, and the others as they are.

        It is at least doubled, since what was found may be only the first part of what is there.
        """
        known, higher = asdict(Limits()), replace(self, **{limit: max(to, 2 * int(getattr(self, limit)))})
        changed = {name: value for name, value in asdict(higher).items() if value != known[name]}
        return ",".join(f"{name}={value}" for name, value in changed.items())


def limits() -> Limits:
    """The limits of this process: those that the environment variable ``COMMITTEE_LIMITS`` says, else the usual ones.

    Raises:
        DataError: the variable says anything else than limits and whole numbers.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Limits:
    known = [field.name for field in fields(Limits)]
    given: dict[str, int] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, _, number = (each.strip() for each in pair.partition("="))
        if name not in known:
            raise DataError(
                f"{VARIABLE}: limits such as pixels=100000000,bytes=16000000000 are expected, from "
                f"{', '.join(known)}, got {pair[:100]!r}{nearest(name[:100], known)}; correct it"
            )
        if not (number.isascii() and number.replace("_", "").isdigit() and len(number) < 20):
            raise DataError(
                f"{VARIABLE}: a whole number of at most 19 digits is expected after {name}=, got {number[:100]!r}; "
                f"write it out, such as {name}={getattr(Limits(), name)}"
            )
        given[name] = int(number.replace("_", ""))
    return Limits(**given)
