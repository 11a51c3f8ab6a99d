"""Images that belong together (one patient, one writer, one board): every split keeps them on one side.

Otherwise a member is validated, and a committee tested, on images of patients that it has seen, and looks better than
it will be on new ones. Groups come from the path of an image, from a table beside the data, or from the data's own file
(`RawPart.groups`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import LabelledImages
from committee.data.formats.files import reason
from committee.data.limits import limits
from committee.errors import DataError, counted, nearest

WAYS = (
    "path:1 (the first folder of an image's path below the data; path:-1 the last), name:PATTERN (a regular expression "
    "with a group in brackets, such as name:^(\\w+)_), the name of a column of the data's own table, or a CSV file of "
    "images and groups"
)

_SPEAKING = re.compile(
    r"(patient|subject|person|participant|individual|writer|author|speaker|user|study|series|session|specimen|animal"
    r"|mouse|board|panel|wafer|lot|batch|slide|plate|well|group)[ _-]?(id|no|nr|num|number|name|uid)?"
)


def group_column(given: str | None, names: Sequence[str]) -> int | None:
    """The position of the column that the user means by groups; None where nothing or no column is meant.

    Raises:
        DataError: there is no column of that name.
    """
    if given is None or not _is_column(given) or not names:
        return None
    lower = [name.lower() for name in names]
    if given.lower() not in lower:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise DataError(
            f"groups are given by {WAYS}; there is no column {given!r} among {listed}{nearest(given, list(names))}; "
            "correct it"
        )
    return lower.index(given.lower())


def column_note(names: Sequence[str], cells: Callable[[int], Sequence[object]]) -> tuple[str, ...]:
    """A note about a column that may say which images belong together; empty where there is none.

    Args:
        names: of the columns of the data's own table.
        cells: the position of a column -> its cells.
    """
    for position, name in enumerate(names):
        if _SPEAKING.fullmatch(name.lower()):
            values = cells(position)
            if 1 < len(set(values)) < len(values):
                return (
                    f"the column {name} may say which images belong together ({counted(len(set(values)), 'value')} for "
                    f"{counted(len(values), 'image')}); --groups {name} keeps these on one side of every split",
                )
    return ()


def with_groups(
    images: Sequence[LabelledImages],
    files: Sequence[Sequence[str]],
    own: Sequence[NDArray[np.str_] | None],
    given: str | None,
) -> tuple[list[LabelledImages], list[str]]:
    """Images with their groups, and notes about these.

    Args:
        images: of each part.
        files: for each part the file of each image; empty where one file holds them all.
        own: for each part (image,) what the data's own file says; None where it says nothing.
        given: what the user says, one of `WAYS`; None for nothing.

    Raises:
        DataError: an image has no group, or `given` is none of the `WAYS`.
    """
    known = [np.asarray(each) for each in own if each is not None]
    if given is not None and not (len(known) == len(own) and _is_column(given)):
        names = _given(images, files, given)
    elif len(known) == len(own):
        names = known
    else:
        return list(images), []
    _, numbers = np.unique(np.concatenate(names), return_inverse=True)
    groups = np.split(numbers.astype(np.int64), np.cumsum([len(each) for each in names])[:-1])
    notes = [f"images of one group stay on one side of every split: {counted(int(numbers.max()) + 1, 'group')}"]
    notes[0] += f", by {given}" if given else ""
    if len(groups) == 2 and (shared := len(np.intersect1d(groups[0], groups[1]))):
        verb = "has" if shared == 1 else "have"
        notes.append(
            f"{counted(shared, 'group')} {verb} images in the training and in the test part, so test figures "
            "may be too favourable"
        )
    return [replace(part, groups=each) for part, each in zip(images, groups, strict=True)], notes


def _is_column(given: str) -> bool:
    """Whether what the user says is none of the other `WAYS`."""
    return given.partition(":")[0] not in ("path", "name") and not names_a_file(given)


def _given(images: Sequence[LabelledImages], files: Sequence[Sequence[str]], given: str) -> list[NDArray[np.str_]]:
    """The group of each image of each part, as the user says."""
    way, _, rest = given.partition(":")
    if way in ("path", "name") and rest:
        group_of = _by_folder(rest) if way == "path" else _by_pattern(rest)
        if not all(len(part) for part in files):
            raise DataError(f"groups by {given} need image files, but the images lie in one file; give a CSV of groups")
        return [np.array([group_of(name) for name in part]) for part in files]
    if names_a_file(given):
        return _by_table(images, files, Path(given))
    raise DataError(f"groups are given by {WAYS}, got {given!r}; choose one of these")


def names_a_file(given: str) -> bool:
    """Whether what the user says is the path of a file."""
    try:
        return Path(given).is_file()
    except OSError:  # too long for a path
        return False


def _by_folder(place: str) -> Callable[[str], str]:
    try:
        number = int(place)
    except ValueError:
        number = 0
    if not number:
        raise DataError(f"groups by path need the number of a folder, such as path:1 or path:-1, got path:{place}")

    def folder(name: str) -> str:
        folders = name.split("/")[:-1]
        try:
            return folders[number - 1 if number > 0 else number]
        except IndexError:
            raise DataError(
                f"groups by path:{place} need so many folders above every image, got {name}; give another number"
            ) from None

    return folder


def _by_pattern(pattern: str) -> Callable[[str], str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"groups by name need a regular expression, got {pattern!r} ({reason(error)})") from error
    if not compiled.groups:
        raise DataError(f"groups by name need brackets around what names the group, such as ^(\\w+)_, got {pattern!r}")

    def part_of_name(name: str) -> str:
        found = compiled.search(name.rpartition("/")[2])
        if found is None or found[1] is None:
            raise DataError(f"{name}: its name does not match the pattern of groups {pattern!r}; change the pattern")
        return found[1]

    return part_of_name


def _by_table(images: Sequence[LabelledImages], files: Sequence[Sequence[str]], table: Path) -> list[NDArray[np.str_]]:
    """Groups from a table: two columns name images and groups, a single one has a row for each image in their order."""
    try:
        limits().check("encoded", table.stat().st_size, str(table), "bytes of a table of groups")
        text = table.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table}: a table in UTF-8 is expected, got something else ({reason(error)}); save it again"
        ) from error
    sizes = [len(part) for part in images]
    if rows and all(len(row) == 1 for row in rows):
        column = [row[0] for row in rows][len(rows) - sum(sizes) :]
        if len(rows) not in (sum(sizes), sum(sizes) + 1):
            raise DataError(
                f"{table}: a row for each of {sum(sizes):,} images is expected, got {len(rows):,}; give the training "
                "images first, then the test images, below at most one header"
            )
        return np.split(np.array(column), np.cumsum(sizes)[:-1])
    group_of = {row[0]: row[1] for row in rows if len(row) >= 2}
    found = []
    for part in files:
        missing = [name for name in part if name not in group_of and name.rpartition("/")[2] not in group_of]
        if missing or not len(part):
            example = missing[0] if missing else "images in one file"
            raise DataError(
                f"{table}: rows of an image's file and its group are expected for every image, got none for {example}; "
                "add it, or give a single column with a row for each image in their order"
            )
        found.append(np.array([group_of.get(name) or group_of[name.rpartition("/")[2]] for name in part]))
    return found
