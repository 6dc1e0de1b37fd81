"""Build many rows of a text table at once from columns, without a loop over the rows.

Example: `joined(2, [Texts([b"a", b"bc"]), b"\\t", numbers(np.array([5, 70])), b"\\n"])` is `b"a\\t5\\nbc\\t70\\n"`.

Every cell of a column is written into a matrix of bytes that is as wide as the column's longest cell, and filled up
with NUL. Then all NULs are removed. So a cell must not contain NUL; ids cannot, because the reader refuses control
characters.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_core.files.columns import Array

# (n, width) uint8, filled up with NUL.
Cells = NDArray[np.uint8]
_ROWS = 4_096  # so many rows stay in the cache of a core
_BYTES = 4 << 20  # largest matrix of several rows
# Longest text of a number from 0 to 1, such as 1.1754944e-38 and 2.2250738585072014e-308.
_FLOAT32, _FLOAT64 = 16, 24


class Texts:
    """A column of texts. rows: (n,) for each row the index of its text, rising; None if each text has one row."""

    def __init__(self, values: Sequence[bytes], rows: Array | None = None) -> None:
        self._values, self._rows = values, rows
        self._widths = np.fromiter(map(len, values), np.int64, len(values))

    def _between(self, lo: int, hi: int) -> tuple[int, int]:
        if self._rows is None:
            return lo, hi
        return int(self._rows[lo]), int(self._rows[hi - 1]) + 1

    def width(self, lo: int, hi: int) -> int:
        """Length in bytes of the longest text of the rows lo to hi - 1; `hi` is larger than `lo`."""
        first, end = self._between(lo, hi)
        return int(self._widths[first:end].max())

    def cells(self, lo: int, hi: int) -> Cells:
        """Of the rows lo to hi - 1, (hi - lo, width)."""
        first, end = self._between(lo, hi)
        texts = np.array(self._values[first:end], np.bytes_)
        cells = texts.view(np.uint8).reshape(end - first, texts.itemsize)
        return cells if self._rows is None else cells[self._rows[lo:hi] - first]


Cell = bytes | Cells | Texts
Column = Cell | tuple[NDArray[np.bool_], Cell]


def joined(n: int, columns: Sequence[Column]) -> bytes:
    """The bytes of `n` rows, each with the cells of all columns side by side, without anything between them.

    A column is a text that all rows have, or cells, or Texts; with (mask, column), rows with False have an empty cell.
    """
    return b"".join(part for lo in range(0, n, _ROWS) for part in _parts(columns, lo, min(lo + _ROWS, n)))


def _parts(columns: Sequence[Column], lo: int, hi: int) -> Iterator[bytes]:
    """Rows lo to hi - 1, divided until a matrix has at most _BYTES: one long id must not widen thousands of rows."""
    width = sum(_width(column, lo, hi) for column in columns)
    if hi - lo > 1 and width * (hi - lo) > _BYTES:
        middle = (lo + hi) // 2
        yield from _parts(columns, lo, middle)
        yield from _parts(columns, middle, hi)
        return
    matrix = np.concatenate([_cells(column, lo, hi) for column in columns], axis=1)
    yield matrix.tobytes().translate(None, b"\0")


def _width(column: Column, lo: int, hi: int) -> int:
    if isinstance(column, tuple):
        return _width(column[1], lo, hi)
    if isinstance(column, bytes):
        return len(column)
    return column.width(lo, hi) if isinstance(column, Texts) else column.shape[1]


def _cells(column: Column, lo: int, hi: int) -> Cells:
    if isinstance(column, tuple):
        return np.where(column[0][lo:hi, None], _cells(column[1], lo, hi), np.uint8(0))
    if isinstance(column, bytes):
        return np.broadcast_to(np.frombuffer(column, np.uint8), (hi - lo, len(column)))
    return column.cells(lo, hi) if isinstance(column, Texts) else column[lo:hi]


def numbers(values: Array) -> Cells:
    """Whole numbers (n,), not negative, as decimals."""
    rest = values.astype(np.int64)
    width = len(str(int(rest.max()))) if len(rest) else 1
    cells = np.zeros((len(rest), width), np.uint8)
    for place in range(width - 1, -1, -1):
        more, digit = np.divmod(rest, 10)
        cells[:, place] = digit + ord("0")
        if place < width - 1:
            cells[rest == 0, place] = 0
        rest = more
    return cells


def decimals(values: NDArray[np.floating[Any]]) -> Cells:
    """Numbers from 0 to 1 (n,), float32 or float64, as the shortest text that reads back as the same. NaN: empty."""
    texts = values.astype(np.bytes_)
    width = _FLOAT32 if values.dtype == np.float32 else _FLOAT64
    cells = texts.view(np.uint8).reshape(len(values), texts.itemsize)[:, :width]
    missing = np.isnan(values)
    return np.where(missing[:, None], np.uint8(0), cells) if missing.any() else cells


def words(which: Array, names: Sequence[str]) -> Cells:
    """`names[which]` for each row; `which` (n,) whole numbers."""
    table = np.array([name.encode() for name in names], np.bytes_)
    return table.view(np.uint8).reshape(len(names), table.itemsize)[which]


def copied(cells: Cells, rows: Array) -> Cells:
    """`cells[rows]`, empty where the row is -1."""
    found = cells[rows] if len(cells) else np.zeros((len(rows), 1), np.uint8)
    found[rows < 0] = 0
    return found


def fasta(headers: Sequence[bytes], letters: Sequence[bytes], width: int) -> bytes:
    """Records of a FASTA file: headers without `>`, letters in lines of `width`."""
    parts: list[bytes] = []
    for header, text in zip(headers, letters, strict=True):
        lines = [text[i : i + width] for i in range(0, len(text), width)]
        parts += (b">", header, b"\n", b"\n".join(lines), b"\n")
    return b"".join(parts)
