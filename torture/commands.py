"""Give bad input files to `virnucpro predict`, each in a process of its own.

Expected is exit code 0 and a row in `contigs.tsv` for every record, or exit code 2 and one line that names the file.
`rubbish.py` gives many more such files to the reader alone.
"""

import gzip
import os
import time
from collections.abc import Iterator, Sequence

from torture.rubbish import FASTA, FASTQ, HOSTILE_IDS
from torture.site import Site
from torture.table import Row, Task, campaign

TIMEOUT = 300.0
REFUSED = {
    "empty.fa": b"",
    "page.fa": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "binary.fa": bytes(range(256)) * 64,
    "wide.fa": FASTA.decode().encode("utf-16"),
    "nul.fa": FASTA[:12] + b"\0" + FASTA[12:],
    "stray.fa": FASTA.replace(b"GTAC", b"G>AC"),
    "mixed.fa": FASTA + FASTQ,
    "twice.fa": FASTA + FASTA,
    "quality.fq": FASTQ.replace(b"IIIIIIII", b"III"),
    "short.fq": FASTQ[:-12],
    "cut.fa.gz": gzip.compress(FASTA)[:-9],
    "tail.fa.gz": gzip.compress(FASTA) + b"junk",
    "bomb.fa.gz": gzip.compress(b">a\n" + b"A" * (70 << 20)),
}
NAMED = [name for name in HOSTILE_IDS if name.isprintable() and " " not in name and len(name) < 100]
ACCEPTED = {
    "hostile.fa": ("".join(f">{name} x\nACGTTGCA\n" for name in NAMED).encode(), len(NAMED)),
    "odd.fa": (b"\xef\xbb\xbf>crlf\r\nACGU\r\nacgt\r\n>none\r\n>masked\r\nXXXX\r\n", 3),
    "many.fa": (b"".join(b">r%d\n" % i for i in range(20_000)), 20_000),
}


@campaign("commands", share=1)
def commands(task: Task) -> Sequence[Row]:
    """Try every file once, regardless of the time limit."""
    began, row, site = time.monotonic(), Row("rubbish to the command line"), Site(task.folder / "commands")
    site.begin()
    for name, data in REFUSED.items():
        (site.folder / name).write_bytes(data)
    for name, (data, _) in ACCEPTED.items():
        (site.folder / name).write_bytes(data)
    (site.folder / "folder.fa").mkdir()
    os.mkfifo(site.folder / "pipe.fa")
    (site.folder / "loop.fa").symlink_to(site.folder / "loop.fa")
    for name in (*REFUSED, "folder.fa", "pipe.fa", "loop.fa", "missing.fa", *ACCEPTED):
        row.points += 1
        for kind, found in _judge(site, name):
            setattr(row, kind, getattr(row, kind) + 1)
            row.findings.append(f"{name}: {found}")
    row.seconds, row.note = time.monotonic() - began, f"{len(ACCEPTED)} accepted, the others refused"
    return (row,)


def _judge(site: Site, name: str) -> Iterator[tuple[str, str]]:
    """(column of the table, finding) for every wrong behaviour of the command."""
    run = site.start(out=f"out-{name}", file=name)
    code, errors = run.process.wait(TIMEOUT), run.errors()
    if any("Traceback" in line for line in errors):
        yield "tracebacks", errors[-1]
    elif name not in ACCEPTED:
        if code != 2 or len(errors) != 1 or name not in errors[0]:
            yield "wrong", f"exit {code}, {errors[:3]}"
    elif code or errors:
        yield "wrong", f"exit {code}, {errors[:3]}"
    else:
        rows = (site.folder / f"out-{name}" / "contigs.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
        if len(rows) != ACCEPTED[name][1]:
            yield "lost", f"{len(rows)} rows of {ACCEPTED[name][1]} records"
    yield from (("wrong", problem) for problem in site.left())
