"""Opens a text file that is plain or compressed: gzip (also with many members, and bgzip), bzip2, xz or zstd.

The first bytes of the file decide which compression it has, never its name. A compressed file is refused if it ends
early, is damaged or has other data after its end. This module calls the decompressors itself, because the readers of
the standard library ignore damaged or extra data at the end. Archives of several files (zip, tar) are refused. Knows
compression; knows no sequence format.
"""

import bz2
import contextlib
import io
import lzma
import os
import re
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

from virnucpro_core.errors import IncompleteError, InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READ = 1 << 16
_WRITE = 1 << 20
# Real sequence files never compress this well. A higher ratio means a file that was made to fill the disk.
_RATIO, _RATIO_FROM = 250, 64 << 20
_XZ_MEMORY = 256 << 20
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
# An empty FASTQ record at the end of a file whose (empty) line of qualities is missing.
_EMPTY_RECORD, _TAIL = re.compile(rb"\n\r?\n\+[^\n]*$"), 1 << 12
# Archives of several files by their first bytes; the mark of a tar file comes later.
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_TAR, _TAR_AT = b"ustar", 257
_UNPACK = "unpack it and give the files in it, or the folder"
_ESCAPE = b"\x1b"
_TO_ESCAPE = re.compile(rb"[\x1b\x80-\xff]")
_ESCAPED = re.compile(rb"\x1b([0-9a-f]{2})")


def open_text(path: Path) -> io.BufferedReader:
    """The decompressed text of a regular file as ASCII. Other bytes are escaped; `unescape` restores them.

    Drops a UTF-8 byte order mark and empty lines at the end. Raises InputError, here or while reading, if the file is
    not a regular file, unreadable, cut, damaged or binary, or if it decompresses to far more than its size.
    """
    return io.BufferedReader(_Blocks(_escaped(path, _unpacked(path))), _WRITE)


def unescape(text: str) -> bytes:
    """The original bytes of a string that was read with `open_text`."""
    data = text.encode("ascii")
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), data) if _ESCAPE in data else data


def stat_regular(path: Path) -> os.stat_result:
    """Size and times of a regular file. Raises InputError for anything else, such as a folder or a pipe."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError("not a regular file", path=path, remedy="give a file, not a folder, pipe or device")
    return found


def first_bytes(path: Path, size: int) -> bytes:
    """The first `size` bytes of the file's decompressed content, at most `_WRITE`. Raises what `open_text` raises."""
    with contextlib.closing(_unpacked(path)) as blocks:
        return next((block for block in blocks if block), b"")[:size]


def is_cut_bgzip(path: Path) -> bool:
    """Whether the file is in bgzip format but lacks the empty block at its end. Then it was probably cut.

    For FASTQ files the missing block proves nothing: the software of some sequencers never writes it. A cut FASTQ file
    is recognised by its incomplete last record.
    """
    with path.open("rb") as stream:
        head = stream.read(18)
        if not (head.startswith(b"\x1f\x8b\x08\x04") and head[12:16] == b"BC\x02\x00"):
            return False
        stream.seek(-min(len(_BGZF_END), path.stat().st_size), io.SEEK_END)
        return stream.read() != _BGZF_END


class _Blocks(io.RawIOBase):
    """Makes an iterator of byte blocks readable as a stream."""

    def __init__(self, blocks: Generator[bytes]) -> None:
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:  # a block may be empty
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        n = min(len(buffer), len(self._rest))
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n

    def close(self) -> None:
        self._blocks.close()
        super().close()


class _Packing(NamedTuple):
    name: str
    magic: re.Pattern[bytes]
    start: Callable[[], Any]


_PACKINGS = (
    _Packing("gzip", re.compile(rb"\x1f\x8b"), lambda: IgzipDecompressor(flag=DECOMP_GZIP)),
    _Packing("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), bz2.BZ2Decompressor),
    _Packing(
        "xz",
        re.compile(rb"\xfd7zXZ\x00"),
        lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    ),
    # A data frame, or a skippable frame: files of pzstd begin with one.
    _Packing(
        "zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), zstd.ZstdDecompressor
    ),
)
_ISAL_ERROR = cast(type[Exception], IsalError)  # the type stub wrongly declares an instance
_DAMAGE = (OSError, EOFError, ValueError, _ISAL_ERROR, lzma.LZMAError, zstd.ZstdError)


def _unpacked(path: Path) -> Generator[bytes]:
    """The decompressed content of the file in blocks of at most `_WRITE` bytes."""
    stat_regular(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
            stream.seek(0)
            packing = next((p for p in _PACKINGS if p.magic.match(head)), None)
            if packing is None:
                blocks: Iterator[bytes] = iter(lambda: stream.read(_WRITE), b"")
            else:
                blocks = _decompressed(path, stream, packing)
            for number, block in enumerate(blocks):
                if not number:
                    _refuse_archive(path, block)
                yield block
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error


def _refuse_archive(path: Path, head: bytes) -> None:
    """Raises InputError if the content begins like an archive of several files."""
    kind = next((kind for start, kind in _ARCHIVES.items() if head.startswith(start)), "")
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        kind = "tar"
    if kind:
        raise InputError(f"a {kind} archive, not one sequence file", path=path, remedy=_UNPACK)


def _decompressed(path: Path, stream: BinaryIO, packing: _Packing) -> Generator[bytes]:
    decoder, read, written = packing.start(), 0, 0
    data = b""
    while True:
        if decoder.eof:
            # Zero bytes are allowed between and after members. Anything else is another member, or damage.
            data = decoder.unused_data.lstrip(b"\0")
            while not data:
                data = stream.read(_READ)
                if not data:
                    return
                read += len(data)
                data = data.lstrip(b"\0")
            decoder = packing.start()
        elif decoder.needs_input:
            data = stream.read(_READ)
            read += len(data)
            if not data:
                what = f"the {packing.name} file ends too early"
                raise IncompleteError(
                    what, path=path, remedy="it was cut while it was copied or written: fetch it again"
                )
        else:
            data = b""
        try:
            block = decoder.decompress(data, _WRITE)
        except _DAMAGE as error:
            what = f"the {packing.name} file is damaged after {written:,} unpacked bytes ({error})"
            raise InputError(what, path=path, remedy="fetch or make it again") from error
        written += len(block)
        if written > max(_RATIO_FROM, _RATIO * read):
            what = f"decompresses to over {_RATIO:,} times its size"
            raise InputError(what, path=path, remedy="if this is intended, decompress it first")
        if block:
            yield block


def _escaped(path: Path, blocks: Generator[bytes]) -> Generator[bytes]:
    """Text for an ASCII parser: no byte order mark, no NUL, other bytes than ASCII as ESC and two hex digits."""
    mark, held, tail = b"\xef\xbb\xbf", b"", b""
    with contextlib.closing(blocks):
        for block in blocks:
            text, mark = block.removeprefix(mark), b""
            if b"\0" in text:
                raise InputError("binary data, not text", path=path, remedy="give FASTA or FASTQ as UTF-8")
            if not text.isascii() or _ESCAPE in text:
                text = _TO_ESCAPE.sub(lambda match: b"\x1b%02x" % match[0][0], text)
            # Line ends at the end of a block are kept for later: at the end of the file, empty lines are dropped.
            body = text.rstrip(b"\r\n")
            if body:
                yield held + body
                tail = (tail + held + body)[-_TAIL:]
                held = text[len(body) :]
            else:
                held += text
    end = b"\r\n" if held.startswith(b"\r\n") else held[:1]
    yield 2 * end if _EMPTY_RECORD.search(tail) else end
