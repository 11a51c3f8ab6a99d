"""A bundle: a finished run, or a study's model, as one file to be shared; a zip that is written in one way only.

Every file of the manifest and the manifest itself, in the order of their names, stored, at midnight on 1 January 1980,
with the permissions 0644, without extra fields or comments: the same run gives the same bytes on any day and machine.
A reader therefore needs no tolerance. It walks through the file from its first byte, and what differs from what the
writer would have written of these members is refused: other flags, compression, encryption, links, bytes in between or
behind.
"""

from __future__ import annotations

import atexit
import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from committee import disk
from committee.errors import RunError
from committee.folders import files, parsing
from committee.folders.folder import Folder
from committee.folders.manifest import MANIFEST, listed_files
from committee.temporary import temporary_folder, writing_into

ENDING = ".committee"
LARGEST, MOST_MEMBERS = 2**32 - 2**24, 2**16 - 2  # what a zip without its extensions can hold
CHUNK = 2**20
SPARE = 2**24  # bytes that a temporary folder has more than its files take

_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_VERSION, _UTF8, _STORED, _TIME, _DATE = 20, 0x800, 0, 0, 0x21
_UNIX, _PERMISSIONS = 3 << 8 | _VERSION, 0o100644 << 16


class Member(NamedTuple):
    """A file in a bundle: where its bytes begin, how many there are, and their CRC-32."""

    name: str
    crc: int
    size: int
    start: int


def is_bundle(path: Path) -> bool:
    """Whether a path is that of one file, which can be a bundle only, and not of a run's folder."""
    return path.is_file()


# --- writing ----------------------------------------------------------------------------------------------------------


def write_bundle(folder: Folder, path: Path) -> int:
    """Write the bundle of a finished run or model.

    Args:
        folder: its files have been compared with its manifest.
        path: where; an older file is replaced.

    Returns:
        How many files are in it.

    Raises:
        RunError: it has more than 4 GiB or 65,534 files.
        StorageError: the bundle cannot be written.
    """
    names = sorted([*folder.listed, MANIFEST])
    contents = [(name, files.read_bytes(folder.path / name, LARGEST)) for name in names]
    if sum(len(content) for _, content in contents) > LARGEST or len(names) > MOST_MEMBERS:
        raise RunError(f"{folder} is too large for a bundle, which has at most 4 GiB and {MOST_MEMBERS:,} files")
    disk.write(path, zipped(contents))
    return len(names)


def zipped(contents: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of files by their names, in this order."""
    written, members, at = list[bytes](), list[Member](), 0
    for name, content in contents:
        head = _local_header(name, zlib.crc32(content), len(content))
        members.append(Member(name, zlib.crc32(content), len(content), at + len(head)))
        written += [head, content]
        at += len(head) + len(content)
    return b"".join([*written, _directory(members, at)])


def _local_header(name: str, crc: int, size: int) -> bytes:
    spelled = name.encode()
    sizes = (crc, size, size, len(spelled), 0)
    return _LOCAL.pack(b"PK\3\4", _VERSION, _UTF8, _STORED, _TIME, _DATE, *sizes) + spelled


def _directory(members: Sequence[Member], at: int) -> bytes:
    """The end of a zip: its members again, and how many they are; `at` is where it begins."""
    entries = list[bytes]()
    for name, crc, size, start in members:
        spelled = name.encode()
        fixed = (b"PK\1\2", _UNIX, _VERSION, _UTF8, _STORED, _TIME, _DATE, crc, size, size, len(spelled))
        entries.append(_CENTRAL.pack(*fixed, 0, 0, 0, 0, _PERMISSIONS, start - _LOCAL.size - len(spelled)) + spelled)
    directory, count = b"".join(entries), len(members)
    return directory + _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), at, 0)


# --- reading ----------------------------------------------------------------------------------------------------------


def unpacked(path: Path) -> Path:
    """The files of a bundle in a temporary folder, which is removed when this process ends.

    Raises:
        RunError: it is no bundle as `write_bundle` writes it; nothing is unpacked.
        StorageError: there is no space for it.
    """
    path = path.resolve()
    with disk.failures_said(path):
        state = path.stat()
    key = (path, state.st_size, state.st_mtime_ns)
    if key not in _UNPACKED:
        with files.opened(path) as (file, size):
            members = checked_members(file, size, path)
            _UNPACKED[key] = _unpack(file, members, path)
    return _UNPACKED[key]


_UNPACKED: dict[tuple[Path, int, int], Path] = {}
_OPEN = ExitStack()  # of their temporary folders
atexit.register(_OPEN.close)


def _unpack(file: IO[bytes], members: Sequence[Member], path: Path) -> Path:
    needed, content = sum(member.size for member in members) + SPARE, f"the unpacked files of {path.name}"
    above = _OPEN.enter_context(temporary_folder(needed, content))
    with writing_into(above, needed, content):
        folder = above / path.name
        for member in members:
            (folder / member.name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / member.name).open("xb") as target:
                for part in _parts(file, member):
                    target.write(part)
    return folder


def checked_members(file: IO[bytes], size: int, path: Path) -> list[Member]:
    """The members of a bundle, whose bytes have all been compared with what they must be.

    Args:
        file: the bundle, at its beginning.
        size: of the file, bytes.
        path: the bundle, for messages.

    Raises:
        RunError: the file is not what `write_bundle` would write of its members; they are not the files of the
            manifest among them, with these sizes and digests.
    """
    begins_as_zip = file.read(4) == b"PK\3\4"
    file.seek(0)
    if not begins_as_zip and path.suffix != ENDING:
        raise RunError(
            f"{path} is neither a run's folder nor a bundle; give a folder that committee train wrote, or a file that "
            "committee bundle made of it"
        )
    members = list(_walk(file, size, path))
    names = [member.name for member in members]
    end = members[-1].start + members[-1].size if members else 0
    file.seek(end)
    if names != sorted({*names}) or MANIFEST not in names:
        raise _no_bundle(path, f"files in the order of their names are expected, each once, {MANIFEST} among them")
    if file.read(size - end) != _directory(members, end):
        raise _no_bundle(path, "its end is not the directory of its files")
    manifest = members[names.index(MANIFEST)]
    if manifest.size > parsing.LARGEST_TEXT:
        raise _no_bundle(path, f"its {MANIFEST} has {manifest.size:,} bytes")
    listed = listed_files(b"".join(_parts(file, manifest)), path / MANIFEST)
    if {*names} != {*listed, MANIFEST}:
        name = min({*names} ^ {*listed, MANIFEST})
        raise _no_bundle(path, f"{name[:80]} is {'not in it' if name in listed else f'not listed in its {MANIFEST}'}")
    for member in members:
        crc, digest, known = 0, hashlib.sha256(), listed.get(member.name)
        if known and known.bytes != member.size:
            raise _no_bundle(path, f"{member.name} has {member.size:,} bytes, {known.bytes:,} are expected")
        for part in _parts(file, member):
            crc = zlib.crc32(part, crc)
            digest.update(part)
        if crc != member.crc or (known and digest.hexdigest() != known.sha256):
            raise _no_bundle(path, f"{member.name} is not the file that was written: SHA-256 or CRC-32 differs")
    return members


def _walk(file: IO[bytes], size: int, path: Path) -> Iterator[Member]:
    """The members one after the other, as their headers tell; nothing but the headers is read."""
    at = 0
    while (head := file.read(_LOCAL.size))[:4] == b"PK\3\4" and len(head) == _LOCAL.size:
        *_, crc, length, _, name_length, _ = _LOCAL.unpack(head)
        spelled = file.read(min(name_length, 2000))
        at += len(head) + len(spelled)
        try:
            name = spelled.decode()
        except UnicodeDecodeError:
            name = ""
        if not name or head + spelled != _local_header(name, crc, length) or length > size - at:
            raise _no_bundle(path, f"a stored, plain file is expected at byte {at - len(head) - len(spelled):,}")
        yield Member(name, crc, length, at)
        at += length
        file.seek(at)


def _parts(file: IO[bytes], member: Member) -> Iterator[bytes]:
    file.seek(member.start)
    for begun in range(0, member.size, CHUNK):
        yield file.read(min(CHUNK, member.size - begun))


def _no_bundle(path: Path, why: str) -> RunError:
    return RunError(f"{path} is not as committee bundle writes it ({why}); have it sent again, or bundle the run again")
