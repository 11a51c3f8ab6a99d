"""A path -> Files: a folder with its links followed, a zip, or a single file."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from committee.data.formats.files import FAULTS, Files, reason
from committee.data.limits import limits
from committee.errors import DataError, counted

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
"""The records at the end of a zip, and in front of it where it has 64-bit sizes."""

_ENTRY_BYTES = 47
"""The fewest bytes of a member in a zip's directory: its name has one character."""

_COUNTED_ON, _COUNTED_ALWAYS = 10, 1_000_000
"""Files of a folder are counted up to so many times the limit, and up to so many at least: what the message advises is
enough then.
"""

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)

_CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}


def _wanted(parts: list[str]) -> bool:
    """Whether no part of a name is hidden or clutter that operating systems leave behind."""
    return not any(part.startswith(".") or part in _CLUTTER for part in parts)


def _content(path: str, most: int) -> bytes | None:
    """A file, without what Python's file objects cost: a third of decoding a small image. None where it is longer."""
    handle = os.open(path, _READ)
    try:
        content = os.read(handle, 2**16)
        if len(content) < 2**16:
            return content if len(content) <= most else None
        if os.fstat(handle).st_size > most:
            return None
        parts = [content]
        while parts[-1] and (left := most + 1 - sum(map(len, parts))) > 0:
            parts.append(os.read(handle, min(left, 2**24)))
        content = b"".join(parts)
        return content if len(content) <= most else None
    finally:
        os.close(handle)


def _walked(path: Path, deep: bool) -> tuple[list[str], list[str], list[str]]:
    """The names of the files and of the folders at a path, sorted, and notes about links that were not followed.

    All folders are read before the first link is followed, so that a folder keeps its own name where a link leads to it
    as well, and no folder is read twice.
    """
    names: list[str] = []
    count, most = 0, limits().files
    folders: list[str] = []
    passed_over: list[str] = []
    root = path.resolve()
    seen: set[Path] = set()
    real: list[tuple[str, Path]] = [("", root)]
    linked: list[tuple[str, Path]] = []
    while real or linked:
        if real:
            name, target = real.pop()
        else:
            name, target = linked.pop(linked.index(min(linked)))
            if target in seen or root.is_relative_to(target):
                passed_over.append(name)
                continue
        if target in seen:  # a link led here before
            continue
        seen.add(target)
        folders.append(name)
        files, inner, links = _listed(path / name, f"{name}/" if name else "")
        count += len(files)
        if count <= most:
            names += files
        elif count > max(_COUNTED_ON * most, _COUNTED_ALWAYS):
            break
        if not deep:
            break
        real += [(folder, target / folder.rpartition("/")[2]) for folder in inner]
        linked += [(link, (path / link).resolve()) for link in links]
    limits().check("files", count, str(path), "files", "give the path of the folder that holds the images")
    notes = []
    if passed_over:
        listed = ", ".join(passed_over[:5]) + (", ..." if len(passed_over) > 5 else "")
        notes.append(
            f"{counted(len(passed_over), 'linked folder')} ({listed}) {'was' if len(passed_over) == 1 else 'were'} "
            "passed over, leading to folders that are read already or hold the data"
        )
    return sorted(names), sorted(folders)[1:], notes


def _listed(folder: Path, prefix: str) -> tuple[list[str], list[str], list[str]]:
    """The files, the real folders and the linked folders in a folder, with a prefix before their names.

    A link that leads nowhere counts as a file, which cannot be read; pipes, sockets and devices are passed over.
    """
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith(".") or entry.name in _CLUTTER:
                    continue
                if entry.is_file(follow_symlinks=False):
                    files.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink():
                    place = Path(entry.path)
                    if place.is_dir():
                        links.append(name)
                    elif place.is_file() or not place.exists():
                        files.append(name)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}); allow it, or give the path of another"
        ) from error
    return files, folders, links


@contextmanager
def open_files(path: Path, deep: bool = True) -> Iterator[Files]:
    """The files at a path: those in a folder, those in a zip or NPZ, or the one file that it names.

    Args:
        path: a folder, a zip or a file. Symbolic links to folders are followed, each real folder once.
        deep: whether those in a folder's subfolders belong to it.

    Raises:
        DataError: the path or a folder in it does not exist or cannot be read, or it is a damaged zip.
    """
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"{path}: the path cannot be followed ({error.strerror}); check it") from error
    if is_folder:
        names, folders, notes = _walked(path, deep)
        yield Files(
            str(path),
            tuple(names),
            lambda name: (path / name).open("rb"),
            lambda name: (path / name).stat().st_size,
            reader=lambda name, most: _content(f"{path}/{name}", most),
            folders=tuple(folders),
            notes=tuple(notes),
        )
    elif not is_file:
        raise DataError(f"{path}: there is no such file or folder; check the path")
    elif path.suffix.lower() in (".zip", ".npz"):
        with _opened_zip(path.open("rb"), str(path)) as files:
            yield files
    else:
        yield Files(str(path.parent), (path.name,), lambda name: path.open("rb"), lambda name: path.stat().st_size)


@contextmanager
def open_zip(files: Files, name: str) -> Iterator[Files]:
    """The members of a zip, such as an NPZ, that is one of `files`."""
    with files.open(name) as file, _opened_zip(file, files.label(name), files.packed(name)) as members:
        yield members


def _folders_of_zip(archive: zipfile.ZipFile) -> set[str]:
    """The folders that a zip names, and those above its files."""
    found: set[str] = set()
    for name in archive.namelist():
        parts = name.split("/")[:-1]
        if _wanted(parts):
            found.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


def _directory_bytes(file: BinaryIO) -> int:
    """The length of a zip's directory, as the record at its end says (APPNOTE.TXT, 4.3.14 to 4.3.16); 0 for no zip."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END.size - 2**16)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        return 0
    length = int(_END.unpack_from(tail, at)[5])
    locator = at - _LOCATOR.size
    if length == 2**32 - 1 and locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        file.seek(min(_LOCATOR.unpack_from(tail, locator)[2], size))
        record = file.read(_END_64.size)
        length = int(_END_64.unpack(record)[8]) if len(record) == _END_64.size else 0
    return length


@contextmanager
def _opened_zip(file: BinaryIO, where: str, packed: int | None = None) -> Iterator[Files]:
    """The members of a zip, of which only the directory is read, once it is known to be within the limits.

    Args:
        file: the zip, open.
        where: for messages.
        packed: its bytes where it is stored, in a zip around it; None for a file.
    """
    with file:
        try:
            size = file.seek(0, os.SEEK_END)
            limits().check("files", _directory_bytes(file) // _ENTRY_BYTES, where, "files in a zip", "unpack it")
            archive = zipfile.ZipFile(file)
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except DataError:
            raise
        except FAULTS as error:
            raise DataError(
                f"{where}: a zip is expected, got something else ({reason(error)}); copy or download it again"
            ) from error
        with archive:
            limits().check_unpacked(sum(info.file_size for info in infos.values()), packed or size, where)
            _check_kinds(infos.values(), where)
            share = min(1, (size if packed is None else packed) / max(size, 1))
            yield Files(
                where,
                tuple(sorted(name for name in infos if _wanted(name.split("/")))),
                lambda name: _member(archive, infos[name], where),
                lambda name: infos[name].file_size,
                packer=lambda name: int(infos[name].compress_size * share),
                separator=": ",
                folders=tuple(sorted(_folders_of_zip(archive))),
            )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> BinaryIO:
    """A member of a zip, open."""
    try:
        return cast(BinaryIO, archive.open(info))
    except FAULTS as error:
        raise DataError(
            f"{where}: {info.filename}: the file cannot be read ({reason(error)}); copy or download it again"
        ) from error


def _check_kinds(infos: Iterable[zipfile.ZipInfo], where: str) -> None:
    """Members must be stored or deflated: Python unpacks those of other kinds without any bound on their memory."""
    odd = next((info for info in infos if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), None)
    if odd is not None:
        kind = zipfile.compressor_names.get(odd.compress_type, str(odd.compress_type))  # type: ignore[attr-defined]
        raise DataError(
            f"{where}: members that are stored or deflated are expected, got {odd.filename} ({kind}); zip it again"
        )
