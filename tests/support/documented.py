"""Blocks of commands in the documentation, and running them as a reader would."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.{8,}) -->$")
IN_FULL = "<!-- run in full -->"
MARK = "\x1e"  # between the outputs of a block's commands
NUMBER = re.compile(r"\d+\.\d+")
NEAR = 0.01  # a score may differ so much on another processor
# What differs from run to run: dates, sizes on disk, durations.
VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "DATE"),
    (re.compile(r"~\d+(\.\d+)? [kMG]?B"), "SIZE"),
    (re.compile(r"\d+ s\b"), "SECONDS"),
)
TREE = (Path(__file__).parents[2], Path(sys.executable).parent)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of commands. line: of its fence, from 1. why_not: the reason if it is not run, else empty."""

    page: str
    line: int
    kind: str
    text: str
    why_not: str
    in_full: bool

    @property
    def commands(self) -> list[tuple[str, str]]:
        """(command, output that the page shows); `sh` blocks show none."""
        if self.kind == "sh":
            return [(self.text, "")]
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def blocks(page: str, text: str) -> list[Block]:
    """All blocks of shell commands of a page, in order."""
    found = []
    for match in BLOCK.finditer(text):
        before = text[: match.start()].rstrip().splitlines()
        mark = before[-1] if before else ""
        reason = NOT_RUN.match(mark)
        line = text.count("\n", 0, match.start()) + 1
        why_not = reason[1] if reason else ""
        found.append(Block(page, line, match[1], match[2], why_not, mark == IN_FULL))
    return found


@dataclass(slots=True)
class Reader:
    """Somebody who types commands: one folder, one home. quick: the folder of `quick_program`, if there is one."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    quick: Path | None = None

    def run(self, block: Block, *, in_full: bool) -> list[str]:
        """The output of each command of the block. Fails with all that was printed if one of them fails."""
        lines = ["set -euo pipefail"]
        for command, _ in block.commands:
            lines += [command, f"printf '{MARK}'"]
        ended = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=self.folder,
            env=self._environment(in_full=in_full),
            input="y\n" * 20,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert ended.returncode == 0, f"{block.page}:{block.line}\n{block.text}\n{ended.stdout}{ended.stderr}"
        return ended.stdout.split(MARK)[:-1]

    def _environment(self, *, in_full: bool) -> dict[str, str]:
        root, programs = TREE
        own = {k: v for k, v in os.environ.items() if not k.startswith(("VIRNUCPRO_", "DAGSTER_"))}
        path = [str(programs), own["PATH"]] if in_full else [str(self.quick), str(programs), own["PATH"]]
        return own | self.variables | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(root)}


def same(shown: str, printed: str) -> bool:
    """Whether the output is what the page shows: `...` is any number of lines, volatile parts are not compared."""
    wanted, got = _stable(shown), _stable(printed)
    at = 0
    skipping = False
    for line in wanted:
        if line == "...":
            skipping = True
            continue
        while skipping and at < len(got) and not _alike(line, got[at]):
            at += 1
        if at == len(got) or not _alike(line, got[at]):
            return False
        at, skipping = at + 1, False
    return skipping or at == len(got)


def _stable(text: str) -> list[str]:
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _alike(shown: str, printed: str) -> bool:
    """Equal, but for numbers with decimals that are near to each other, and the spaces that depend on them."""
    if NUMBER.sub("N", shown).split() != NUMBER.sub("N", printed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(abs(float(a) - float(b)) <= NEAR for a, b in pairs)


def write_bam(path: Path, genome: str) -> None:
    """Five reads of the genome that are not aligned."""
    pysam = pytest.importorskip("pysam", reason="pysam is not installed")
    with pysam.AlignmentFile(path, "wb", header={"HD": {"VN": "1.6"}}) as file:
        for k in range(5):
            read = pysam.AlignedSegment()
            read.query_name, read.query_sequence, read.flag = f"r{k}", genome[200 * k :][:150], 4
            read.query_qualities = pysam.qualitystring_to_array("I" * 150)
            file.write(read)
