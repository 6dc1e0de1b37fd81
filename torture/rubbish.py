"""Give malformed FASTA and FASTQ files, made from a seed, to the reader: it must read each in full or refuse it.

A refusal must be one line. An accepted file must give as many records as an independent count finds. A damaged
compressed file must give exactly the records of the undamaged one, or be refused. `commands.py` tests the command line.
"""

import bz2
import contextlib
import gzip
import itertools
import lzma
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torture.lines import is_one_line
from torture.table import Row, Task, campaign
from virnucpro_core.errors import InputError
from virnucpro_core.sequences.archives import zstd
from virnucpro_core.sequences.fasta import read_records

PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}
FASTA = b">a one\nACGTACGTNN\nACG\n>b\nTTGACA\n"
FASTQ = b"@a one\nACGTACGT\n+\nIIIIIIII\n@b\nTTGACA\n+b\nII#@+I\n"
BLANKS = b" \t\x0b\x0c\x1c\x1d\x1e\x1f"
HOSTILE_IDS = (
    "../../x", "/etc/passwd", "..\\..\\x", "C:\\x", "<img src=x onerror=alert(1)>", "<script>alert(1)</script>",
    "=cmd()", "+1+1", "-2", "@SUM(A1)", "`id`", "$(id)", "%s%n", "a|b|c", "[x](http://x)", "{{7*7}}", "';DROP--",
    "\u202eabc", "\u200bzero", "é", "日本語", "😀", "a\u0301", "NUL", "x" * 5_000, "y" * 1_000_000, '"', "'", "\\", "#",
    "a\tb", "a\x0bb", "a\x1cb", "a\x85b", "a\u2028b", "\ufeffa", "a\x7fb", "\x1b[31mred",
)  # fmt: skip


@campaign("rubbish in", share=0.5)
def rubbish_in(task: Task) -> Sequence[Row]:
    return [run_rubbish(task.folder, seconds=task.seconds, seed=task.seed)]


def run_rubbish(
    folder: Path, *, seconds: float, seed: int, points: int = 10_000_000, large: bool = True
) -> Row:
    """Try the listed files (the large ones only if asked for), then random changes until time or points are used up."""
    row, letters, started = Row("rubbish in"), random.Random(seed), time.monotonic()
    listed = [*_listed(), *(_large() if large else ())]
    for name, data, expected in itertools.chain(listed, _changed(letters)):
        if row.points >= points or time.monotonic() - started > seconds:
            break
        row.points += 1
        for kind, found in judge(folder, name, data, expected):
            setattr(row, kind, getattr(row, kind) + 1)
            row.findings.append(f"{name} {data[:60]!r}: {found}")
    for path in _no_files(folder):
        row.points += 1
        for kind, found in _read(path, None):
            setattr(row, kind, getattr(row, kind) + 1)
            row.findings.append(f"{path.name}: {found}")
    row.seconds, row.note = time.monotonic() - started, f"{len(listed)} listed, the others random"
    return row


def judge(folder: Path, name: str, data: bytes, expected: int | None) -> Iterator[tuple[str, str]]:
    """Read one file. Yields (column of the table, finding) if it was neither read in full nor refused in one line."""
    path = folder / name
    path.write_bytes(data)
    known = records_in(data) if expected is None and "." not in name[3:] else expected
    yield from _read(path, known, data)


def _read(path: Path, expected: int | None, given: bytes = b"") -> Iterator[tuple[str, str]]:
    try:
        found = list(read_records([path]))
    except InputError as error:
        if not is_one_line(error, given) and "\n" not in path.name:
            yield "tracebacks", str(error)[:300]
    except Exception as error:  # noqa: BLE001 - any error that the user would see
        yield "tracebacks", f"{type(error).__name__}: {error}"
    else:
        if expected is not None and len(found) != expected:
            yield "lost", f"{len(found)} records of {expected}"
        if len({record.id for record in found}) != len(found):
            yield "wrong", "ids are not distinct"


def records_in(data: bytes) -> int | None:
    """Number of records in plain text, counted from its lines; None if this needs the reader."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    first = text.lstrip()[:1]
    if first in (b">", b"#"):
        return sum(line.lstrip(BLANKS).startswith(b">") for line in re.split(rb"\r\n|\r|\n", text))
    if first == b"@":
        return (len(text.rstrip(b"\r\n").split(b"\n")) + 3) // 4
    return None


def _listed() -> Iterator[tuple[str, bytes, int | None]]:
    """(name, content, number of records if it is accepted) of the files that are written down here."""
    for kind, text in (("fa", FASTA), ("fq", FASTQ)):
        for suffix, pack in PACKERS.items():
            packed = pack(text)
            yield from (
                (f"x.{kind}{suffix}", packed[:cut], 2 if suffix else None) for cut in range(len(packed) + 1)
            )
            yield f"x.{kind}{suffix}", packed + pack(text.replace(b"a", b"c").replace(b"b", b"d")), 4
            yield f"x.{kind}{suffix}", packed + b"\0" * 100, 2 if suffix else None
            yield f"x.{kind}{suffix}", packed + b"junk", 2 if suffix else None
        for place in range(len(text) + 1):
            for inserted in (b"\0", b">", b"@", b"\n", b"\r", b" ", b"\xff", b"+", b";", b"\x1b"):
                yield f"x.{kind}", text[:place] + inserted + text[place:], None
    for name in HOSTILE_IDS:
        yield "x.fa", f">{name} x\nACGT\n>other\nACGT\n".encode(), None
        yield "x.fq", f"@{name}\nACGT\n+\nIIII\n".encode(), None
    yield "x.fa", FASTA + FASTQ, None
    yield "x.fq", FASTQ + FASTA, None
    yield "x.fa", FASTA.decode().encode("utf-16"), None
    yield "x.fq", b"@a\nACGT\n+\nIII\n", None
    yield "x.fq", b"@a\nACG\nT\n+\nIIII\n", None
    yield "x.fa", b"".join(b">r%d\n" % i for i in range(1000)), 1000
    yield "x.fa", b"\n" * 5000 + FASTA, 2


def _large() -> Iterator[tuple[str, bytes, int | None]]:
    yield "x.fa", b">a\n" + b"ACGT" * 2_500_000 + b"\n>b\n" + b"N" * 10_000_000 + b"\n", 2
    yield "x.fa", b"".join(b">r%d\n" % i for i in range(1_000_000)), 1_000_000
    yield "x.fa", b">" + b"a" * 10_000_000 + b"\nACGT\n", 1
    for suffix, pack in PACKERS.items():
        if suffix:
            yield f"x.fa{suffix}", pack(b">a\n" + b"A" * (70 << 20)), None


def _changed(letters: random.Random) -> Iterator[tuple[str, bytes, int | None]]:
    """Endless: valid files with a few random bytes changed, moved or repeated; a compressed one may only be refused."""
    texts = {"fa": FASTA, "fq": FASTQ}
    intact = {(kind, suffix): PACKERS[suffix](text) for kind, text in texts.items() for suffix in PACKERS}
    while True:
        kind, suffix = letters.choice(list(intact) + [("fa", ""), ("fq", "")] * 3)
        data = bytearray(intact[kind, suffix])
        for _ in range(letters.randint(1, 4)):
            a, b = sorted(letters.choices(range(len(data) + 1), k=2))
            change = letters.randrange(4)
            if change == 0 and a < len(data):
                data[a] = letters.randrange(256)
            elif change == 1:
                del data[a:b]
            elif change == 2:
                data[a:a] = data[a:b]
            else:
                data[a:a] = letters.choice((b">", b"@", b"\n", b"+\n", b"\r\n", b"X" * 9, b"\xc3\xa9", b"\t"))
        yield f"x.{kind}{suffix}", bytes(data), None


def _no_files(folder: Path) -> Iterator[Path]:
    """Paths that are not regular files, and one file with a hostile name."""
    (folder / "folder.fa").mkdir()
    os.mkfifo(folder / "pipe.fa")
    (folder / "loop.fa").symlink_to(folder / "loop.fa")
    (folder / "nowhere.fa").symlink_to(folder / "missing")
    (folder / "line\nbreak \x1b[31m.fa").write_bytes(b"no sequence")
    yield from (folder / name for name in ("folder.fa", "pipe.fa", "loop.fa", "nowhere.fa", "missing.fa"))
    yield folder / "line\nbreak \x1b[31m.fa"
    with contextlib.suppress(OSError):
        (folder / ("n" * 300)).exists()
    yield folder / ("n" * 300 + ".fa")
