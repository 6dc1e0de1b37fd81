"""Every block of commands in README and the documentation is run, or says why not; the tutorial as it stands."""

import gzip
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.documented import IN_FULL, Block, Reader, blocks, same, write_bam
from tests.support.quick_program import quick_program
from virnucpro_core.models.profiles import DEMO

PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / ".github").rglob("*.md"),
]
BLOCKS = [
    block for page in sorted(PAGES) for block in blocks(str(page.relative_to(ROOT)), page.read_text("utf-8"))
]
TUTORIAL = "docs/tutorial.md"
KINDS = {"", "sh", "console", "python", "toml", "ini", "yaml", "nginx", "csv", "mermaid", "groovy"}
COMMAND = re.compile(r"^(?:\$ )?(?:virnucpro|dagster|make|pip) [a-z]", re.MULTILINE)
RUN = [block for block in BLOCKS if not block.why_not and block.page != TUTORIAL]
# Samples that the pages name, each a small file of `many/`; they are predicted once, by one command.
SAMPLES = ("NAME", "WRONG", "pat1", "pat2", "s1", "s2")


def _reader(folder: Path) -> Reader:
    """A home of its own, the profile `demo` in place of the published models, and no GPU."""
    here = folder / "here"
    here.mkdir()
    return Reader(
        here,
        {
            "VIRNUCPRO_HOME": str(folder / "home"),
            "VIRNUCPRO_LEASES": str(folder / "leases"),
            "VIRNUCPRO_PROFILE": "demo",
            "WEIGHTS": str(DEMO),
            "CUDA_VISIBLE_DEVICES": "",
        },
    )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody who has the files that the pages name, and has predicted a few samples."""
    reader = _reader(tmp_path_factory.mktemp("reader"))
    _write_inputs(reader.folder)
    command = "virnucpro predict many/ --chunk-size 300 --out results-many\n"
    [block] = [block for block in BLOCKS if block.text == command]
    reader.run(block, in_full=True)
    scores = reader.folder / "results-many" / "NAME" / "prediction_results.txt"
    shutil.copy(scores, reader.folder)
    with quick_program(reader.folder.parent / "quick") as reader.quick:
        yield reader


def _write_inputs(folder: Path) -> None:
    genome = "".join((DEMO / "viral.fa").read_text().split(">")[2].splitlines()[1:])  # phiX174
    other = "".join((DEMO / "non_viral.fa").read_text().split(">")[1].splitlines()[1:])  # a plasmid
    for n, name in enumerate(("sample", "genome", "FILE", "s", "a", "b", "c")):
        _fasta(folder / f"{name}.fa", genome[40 * n : 40 * n + 3_000])
    for n, name in enumerate(("contigs.fa", "contigs.fasta", "A/contigs.fasta", "B/contigs.fasta")):
        _fasta(folder / name, genome[500 + 10 * n : 4_000])
    for name, letters in (("virus", genome), ("others", other)):  # groups enough for training
        pieces = [letters[1_000 * k : 1_000 * k + 1_000] for k in range(5)]
        (folder / f"{name}.fa").write_text(
            "".join(f">{name}{k}\n{piece}\n" for k, piece in enumerate(pieces))
        )
    for name in ("FILE", "reads.fasta"):
        shutil.copy(folder / "FILE.fa", folder / name)
    for n, name in enumerate(SAMPLES):
        _fasta(folder / "many" / f"{name}.fa", genome[50 * n : 50 * n + 900])
        _fasta(folder / "FOLDER" / f"x{n}.fa", genome[1_000 + 50 * n : 1_900])
    for stem in ("reads", "sample"):
        for mate in (1, 2):
            records = "".join(
                f"@{stem}{k}/{mate}\n{genome[200 * k + 30 * mate :][:150]}\n+\n{'I' * 150}\n"
                for k in range(20)
            )
            (folder / f"{stem}_R{mate}.fastq.gz").write_bytes(gzip.compress(records.encode()))
    (folder / "samples.csv").write_text("sample,fastq_1,fastq_2\nx,reads_R1.fastq.gz,reads_R2.fastq.gz\n")
    (folder / "proteins.faa").write_text(">p\nMKTAYIAKQRQISFVKSHFSRQ\n")
    (folder / "genes.fna").write_text(">g\nATGAAAACTGCTTATATTGCT\n")
    write_bam(folder / "aligned.bam", genome)


def _fasta(path: Path, sequence: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f">{path.stem}_1\n{sequence}\n")


def test_there_are_blocks_and_their_marks_are_understood() -> None:
    assert len(BLOCKS) > 60
    assert len(RUN) > 15
    assert len({b.page for b in BLOCKS if not b.why_not}) > 6
    for page in sorted(PAGES):
        text = page.read_text("utf-8")
        own = [block for block in BLOCKS if block.page == str(page.relative_to(ROOT))]
        marks = (
            text.replace("`<!-- ", "").count("<!-- not run:"),
            text.replace(f"`{IN_FULL}", "").count(IN_FULL),
        )
        assert marks == (sum(bool(b.why_not) for b in own), sum(b.in_full for b in own)), page


def test_no_command_hides_in_a_block_of_another_kind() -> None:
    """`bash`, `shell` or no name at all would not be run."""
    for page in sorted(PAGES):
        fences = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        assert {kind for kind, _ in fences} <= KINDS, page
        hidden = [text for kind, text in fences if kind not in ("sh", "console") and COMMAND.search(text)]
        assert not hidden, page


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_runs(reader: Reader, block: Block) -> None:
    reader.run(block, in_full=block.in_full)


def test_the_tutorial_runs_as_it_stands_and_prints_what_it_shows(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In an empty folder and an empty home, in order."""
    reader = _reader(tmp_path_factory.mktemp("tutorial"))
    del reader.variables["VIRNUCPRO_PROFILE"]
    tutorial = [block for block in BLOCKS if block.page == TUTORIAL and not block.why_not]
    assert sum(len(block.commands) for block in tutorial) > 8
    for block in tutorial:
        for (command, shown), printed in zip(block.commands, reader.run(block, in_full=True), strict=True):
            assert same(shown, printed), (
                f"$ {command}\nthe page shows\n{shown}\nthe command printed\n{printed}"
            )
    assert (reader.folder / "results" / "report.html").is_file()


def test_outputs_are_compared_by_their_stable_parts() -> None:
    assert same("a  0.8001  8 s\n...\nz\n", "a 0.8049  12 s\nb\nc\nz\n")
    assert not same("a 0.8001\n", "a 0.9001\n")
    assert not same("a\nz\n", "a\nb\nz\n")
    assert not same("a\n...\n", "b\n")
    assert not same("a\n", "a\nb\n")
    assert same("...\n", "")


def test_a_block_says_why_it_is_not_run_or_is_run() -> None:
    text = "<!-- not run: needs a GPU -->\n```sh\nx\n```\n\n<!-- not run: -->\n```console\n$ y\nout\n```\n"
    first, second = blocks("page.md", text)
    assert (first.why_not, second.why_not) == ("needs a GPU", "")
    assert second.commands == [("y", "out\n")]
