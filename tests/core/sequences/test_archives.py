"""Whatever a file is packed in, its text comes out whole or an error does."""

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError
from virnucpro_core.sequences import archives
from virnucpro_core.sequences.archives import open_text, stat_regular, unescape
from virnucpro_core.sequences.fasta import read_records

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bgzip(data: bytes, block: int = 700) -> bytes:
    """Blocks of BGZF and the empty one that ends the file, after the SAM specification, section 4.1."""
    out = b""
    for at in range(0, len(data), block):
        packer = zlib.compressobj(wbits=-15)
        part = data[at : at + block]
        deflated = packer.compress(part) + packer.flush()
        size = (len(deflated) + 25).to_bytes(2, "little")
        out += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + size + deflated
        out += zlib.crc32(part).to_bytes(4, "little") + len(part).to_bytes(4, "little")
    return out + archives._BGZF_END


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bgzip": bgzip,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "zstd without checksum": zstd.compress,
}
TEXT = b"".join(
    b">r%d\n%b\n" % (i, bytes(b"ACGT"[(i * j * j + j) % 4] for j in range(40))) for i in range(60)
)
FASTQ = b"".join(b"@r%d\nACGTTGCA\n+\nIIIIIII%d\n" % (i, i % 10) for i in range(200))

each_packer = pytest.mark.parametrize("name", PACKERS)


def read(path: Path) -> bytes:
    with open_text(path) as stream:
        return unescape(stream.read().decode("ascii"))


@each_packer
def test_text_comes_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "no_suffix"
    for text in (TEXT, b"\xef\xbb\xbf" + TEXT, b""):
        path.write_bytes(PACKERS[name](text))
        assert read(path) == text.removeprefix(b"\xef\xbb\xbf")


@each_packer
def test_members_and_padding(tmp_path: Path, name: str) -> None:
    path, pack = tmp_path / "members", PACKERS[name]
    path.write_bytes(pack(TEXT[:999]) + pack(b"") + pack(TEXT[999:]) + b"\0" * 512)
    assert read(path) == TEXT


@each_packer
@pytest.mark.parametrize("text", [TEXT, FASTQ], ids=["fasta", "fastq"])
def test_every_cut_is_found(tmp_path: Path, name: str, text: bytes) -> None:
    path = tmp_path / "cut"
    packed = PACKERS[name](text)
    # A FASTQ file that has lost but the empty last block of bgzip is whole.
    whole = len(packed) - len(archives._BGZF_END) if name == "bgzip" and text is FASTQ else len(packed)
    cuts = {*range(30), *range(30, len(packed), 7), *range(len(packed) - 40, len(packed))}
    for cut in cuts - {whole}:
        path.write_bytes(packed[:cut])
        with pytest.raises(InputError):
            list(read_records([path]))


@each_packer
def test_damage_never_changes_the_text(tmp_path: Path, name: str) -> None:
    if name == "zstd without checksum":
        pytest.skip("nothing in the file tells")
    path = tmp_path / "damaged"
    packed = PACKERS[name](TEXT)
    refused = 0
    for at in range(len(packed)):
        path.write_bytes(packed[:at] + bytes([packed[at] ^ (1 << at % 8)]) + packed[at + 1 :])
        try:
            names = [(record.id, record.sequence) for record in read_records([path])]
        except InputError:
            refused += 1
        else:
            assert names == [(r.id, r.sequence) for r in read_records([_file(tmp_path, packed)])], at
    assert refused > 0.8 * len(packed)  # a header also holds times and sizes that no reader needs


def _file(folder: Path, data: bytes) -> Path:
    (folder / "sound").write_bytes(data)
    return folder / "sound"


@each_packer
@pytest.mark.parametrize(
    "tail", [b"garbage", b"\x1f\x8b", TEXT[:300]], ids=["letters", "half a magic", "text"]
)
def test_what_follows_an_archive_is_not_dropped(tmp_path: Path, name: str, tail: bytes) -> None:
    path = _file(tmp_path, PACKERS[name](TEXT) + tail)
    with pytest.raises(InputError, match=r"damaged|too early"):
        read(path)


def test_a_frame_to_skip_may_come_first(tmp_path: Path) -> None:
    assert read(_file(tmp_path, b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd.compress(TEXT))) == TEXT


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_RATIO_FROM", 1 << 20)
    path = _file(tmp_path, zstd.compress(b">a\n" + b"A" * (200 << 20)))
    with open_text(path) as stream:
        assert len(stream.read(1 << 20)) == 1 << 20
        with pytest.raises(InputError, match="250 times its size"):
            stream.read(16 << 20)


def test_blocks_of_any_size_give_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_READ", 5)
    monkeypatch.setattr(archives, "_WRITE", 3)
    for name, pack in PACKERS.items():
        assert read(_file(tmp_path, pack(TEXT + "é\r\n\r\n".encode()))) == TEXT + "é\r\n".encode(), name


@given(st.binary(max_size=60).filter(lambda data: b"\0" not in data and data[:2] not in (b"\x1f\x8b", b"BZ")))
def test_other_bytes_than_ascii_come_back(data: bytes) -> None:
    text = b"".join(archives._escaped(Path("x"), (part for part in (data[:7], data[7:]))))
    assert text.isascii()
    end = data.removeprefix(b"\xef\xbb\xbf") if len(data) > 2 else data
    body = end.rstrip(b"\r\n")
    assert unescape(text.decode()).rstrip(b"\r\n") == body


@pytest.mark.parametrize("ends", [b"", b"\n", b"\n\n\n", b"\r\n", b"\r\n\r\n"])
def test_empty_last_lines_are_cut_to_one_end(tmp_path: Path, ends: bytes) -> None:
    expected = ends[:2] if ends.startswith(b"\r") else ends[:1]
    assert read(_file(tmp_path, b">a\nACGT" + ends)) == b">a\nACGT" + expected


def test_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="binary data"):
        read(_file(tmp_path, b">a\nAC\0GT\n"))


def test_only_regular_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="not a regular file"):
            read(path)
        with pytest.raises(InputError, match="not a regular file"):
            stat_regular(path)
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "missing.fa")


def test_streams_close_their_file(tmp_path: Path) -> None:
    stream = open_text(_file(tmp_path, TEXT))
    assert isinstance(stream, io.BufferedReader)
    assert stream.readline() == b">r0\n"
    stream.close()
    assert stream.closed
