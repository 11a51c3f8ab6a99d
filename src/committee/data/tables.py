"""Tables of images: CSV with a pixel a column, as Kaggle's digit recogniser; Parquet as the Hugging Face hub has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 2**23


def digit_table(body: bytes, columns: int) -> NDArray[np.int32] | None:
    """A CSV body of plain non-negative integers as an array, several times faster than numpy's own reader.

    Args:
        body: lines of `columns` numbers with commas between them, no header.
        columns: numbers a line.

    Returns:
        (row, column); None where anything else stands in it, which a slower reader then reads or names.
    """
    body = body.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
    blocks = []
    start = 0
    while start < len(body):
        end = body.find(b"\n", min(start + _CHUNK, len(body) - 1)) + 1
        block = _digit_block(body[start:end], columns)
        if block is None:
            return None
        blocks.append(block)
        start = end
    return np.concatenate(blocks)


def _digit_block(body: bytes, columns: int) -> NDArray[np.int32] | None:
    """Whole lines: the separators' positions give each number's end and length, its digits are added place by place."""
    characters = np.frombuffer(body, np.uint8)
    digit = (characters >= 48) & (characters <= 57)
    newline = characters == 10
    if not (digit | newline | (characters == 44)).all():
        return None
    ends = np.flatnonzero(~digit)
    lengths = np.diff(ends, prepend=-1) - 1
    is_newline = newline[ends]
    if len(ends) % columns or lengths.min() < 1 or lengths.max() > 5:
        return None
    if not is_newline[columns - 1 :: columns].all() or is_newline.sum() != len(ends) // columns:
        return None
    values = characters[ends - 1].astype(np.int32) - 48
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        values[longer] += (characters[ends[longer] - 1 - place].astype(np.int32) - 48) * np.int32(10**place)
    return values.reshape(-1, columns)
