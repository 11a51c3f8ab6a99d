"""Names from data, made harmless where they are shown or written: a function for each place, used by all that print.

Names of classes, files, columns and data sets are whatever somebody wrote. Inside the package, in JSON and in Parquet
they stay what they are. Pages escape them as jinja2 does (`committee.report.page`), figures by `committee.report.style
.label`, the terminal by `committee.terminal`, commands by `shlex.quote`, TOML by tomli_w.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence

_ORDINARY = r"[^\x00-\x7f\u200c\u200d]"  # around joiners, which Persian, Indic scripts and emoji need
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"  # above or below a letter
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
    rf"|(?<={_MARK * 4}){_MARK}|(?<!{_ORDINARY})[\u200c\u200d]|[\u200c\u200d](?!{_ORDINARY})"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FORMULA = re.compile(  # where one begins, or a cell that a spreadsheet trims; the last four are full-width forms
    r"\A(?='*[\t\n])|(?:\A|(?<=[;\t\n]))(?=[^\S\t\n]*'*[=+\-@\uff1d\uff0b\uff0d\uff20])"
)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&@$]|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|]+')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])(\.|$)", re.IGNORECASE)


def visible(text: str, *, lines: bool = False) -> str:
    r"""A text without characters that steer a terminal or that nobody sees: these become escapes such as ``\x1b``.

    That is control characters, marks and overrides of the direction of writing, characters without width, and bytes
    that are no UTF-8, and marks from the fifth on a letter on, which cover other lines. Joiners stay between characters
    outside ASCII, whose scripts need them.

    Args:
        text: any.
        lines: whether line breaks and tabs stay; a single name has none.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return _HIDDEN.sub(lambda found: found[0] if found[0] in kept else _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    form = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(character, form)


def unicode_text(text: str) -> str:
    """A text as it is, but with escapes for bytes of a file's name that are no UTF-8, which few formats can hold."""
    return text.encode(errors="backslashreplace").decode()


def csv_cell(value: object) -> object:
    """A value for a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe before it.

    So does a formula after a semicolon, a tab or a line break, where some spreadsheets begin a cell. Numbers, and texts
    that spell one, stay as they are; other hidden characters become `visible`. Source: OWASP, "CSV Injection".
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub("'", visible(value, lines=True))


def csv_text(
    columns: Sequence[str], rows: Iterable[Iterable[object]], heading: Callable[[str], object] = csv_cell
) -> str:
    """A table as the text of a CSV file: commas, a header, no cell that is a formula.

    `heading` makes a cell of a column's name, where the name holds another one that is in cells, too.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(heading, columns))
    writer.writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def json_text(value: object, indent: int | None = None) -> str:
    """A value of plain types as JSON that can be shown on a terminal: hidden characters are escaped, others are not."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def markdown(text: str) -> str:
    """A text for a line or a table of Markdown in which nothing is a link, HTML, mathematics or a cell's end."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def file_name(text: str, limit: int = 100) -> str:
    """A name for a file or a folder, or a part of one, that is a single valid name on every system.

    Args:
        text: any; harmless names stay as they are.
        limit: bytes that it may have in UTF-8, so that a file system's 255 leave room for more.
    """
    plain = _NO_FILE_NAME.sub("-", visible(text)).encode()[:limit].decode(errors="ignore")
    plain = plain.lstrip(" .-").rstrip(" .")
    return f"_{plain}" if _DEVICES.match(plain) else plain or "unnamed"
