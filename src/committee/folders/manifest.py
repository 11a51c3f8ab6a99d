"""The manifest of a finished folder, run.json: what it holds, as digests; guarded by a digest of its own.

Two numbers stand for a folder. The manifest's `digest` is over all of it and shows that it is the one that was written.
The contents digest is over what is trusted, and not over the page and what else people look at: the page and the
terminal tell it, so that whoever saw it then knows whether a folder still holds what it held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from committee.errors import RunError
from committee.folders import files, parsing
from committee.folders.records import FileRecord, Manifest

MANIFEST = "run.json"
SCHEMA = 3
SHOWN = ("figures/", "tables/", "report.html", "study.html")
"""What people look at, and no command reads: names of files, or what they begin with."""

M = TypeVar("M", bound=Manifest)


def write(folder: Path, manifest: Manifest) -> None:
    """The manifest of a folder, with its digest.

    Raises:
        StorageError: it cannot be written.
    """
    content = manifest.model_dump(mode="json", by_alias=True)
    files.write_json(folder / MANIFEST, sealed(content))


def read(folder: Path, kind: type[M]) -> M:
    """The manifest of a folder.

    Raises:
        RunError: it is missing, damaged, or not of this kind.
    """
    path = folder / MANIFEST
    return files.as_record(checked(files.read_bytes(path), path), kind, path)


def sealed(content: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A manifest with its digest at the end."""
    bare = {name: value for name, value in content.items() if name != "digest"}
    return {**bare, "digest": _sha256(bare)}


def checked(text: bytes, where: Path) -> dict[str, JsonValue]:
    """The manifest that a text holds, compared with its digest; those of versions up to 0.6 have none.

    Raises:
        RunError: it is none, or not the one that was written.
    """
    content = parsing.json_value(text, where)
    if not isinstance(content, dict):
        raise parsing.damaged(where, "a table is expected")
    if "digest" in content:
        as_written = files.json_text(sealed(content)).encode()
        if as_written != text:
            raise parsing.damaged(where, "it is not the manifest that was written, since its digest differs")
    return content


def listed_files(text: bytes, where: Path) -> dict[str, FileRecord]:
    """The files that a manifest lists.

    Args:
        text: of the manifest.
        where: what it is, for messages.

    Raises:
        RunError: it is none, or a name leads out of the folder.
    """
    listed = checked(text, where).get("files")
    if not isinstance(listed, dict):
        raise RunError(f"{where} lists no files of this folder; {parsing.RESTORE}")
    check_names(listed, where)
    return {name: files.as_record(value, FileRecord, where) for name, value in listed.items()}


def contents_digest(manifest: Manifest) -> str:
    """SHA-256 over a manifest without what people look at: what a finished folder holds, as one number."""
    return _contents_digest(manifest.model_dump(mode="json", by_alias=True))


def stored_contents_digest(folder: Path) -> str:
    """The contents digest of a folder of any kind.

    Raises:
        RunError: its manifest is missing or damaged.
    """
    return _contents_digest(checked(files.read_bytes(folder / MANIFEST), folder / MANIFEST))


def _contents_digest(content: Mapping[str, JsonValue]) -> str:
    listed = content["files"]
    assert isinstance(listed, dict)
    trusted = {name: each for name, each in listed.items() if not name.startswith(SHOWN)}
    return _sha256({**{name: value for name, value in content.items() if name != "digest"}, "files": trusted})


def record_of(path: Path) -> FileRecord:
    """Size and digest of a file."""
    with path.open("rb") as content:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(content, "sha256").hexdigest())


def _sha256(content: Mapping[str, JsonValue]) -> str:
    plain = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def check_names(names: Iterable[str], where: Path) -> None:
    """Refuse names that lead out of a folder, or that are not told apart on every system.

    Args:
        names: files below a run's folder, the parts of their paths separated by "/".
        where: what lists them.

    Raises:
        RunError: an absolute name, one with "..", a backslash, a colon or a character that is not printed, one that is
            too long; the manifest itself; two that differ in case alone; one that is also another's folder.
    """
    known, folders = set[str](), set[str]()
    for name in names:
        parts = name.split("/")
        plain = name.isprintable() and not {"\\", ":"} & set(name) and not {"", ".", ".."} & set(parts)
        if (
            not plain
            or max(map(len, parts)) > 200
            or len(parts) > 8
            or name.lower() == MANIFEST
            or name.lower() in known
        ):
            raise RunError(f"{where} lists {name[:80]!r}, no name of a file of this folder; {parsing.RESTORE}")
        known.add(name.lower())
        folders |= {"/".join(parts[:depth]).lower() for depth in range(1, len(parts))}
    if found := sorted(known & folders):
        raise RunError(f"{where} lists {found[0]!r} as a file and as a folder; {parsing.RESTORE}")
