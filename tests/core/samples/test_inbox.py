"""A dropped file counts when it is whole, is seen once, and what cannot be a sample is set aside with its reason."""

import gzip
import re
from pathlib import Path

import pytest

from virnucpro_core.samples.inbox import MATE_PATIENCE, Scan, scan

FASTA, FASTQ = b">a\nACGTACGT\n", b"@a\nACGT\n+\nIIII\n"
STABLE = 10.0


class Inbox:
    """A folder and the memory between looks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.memory = folder / "inbox", {}
        self.folder.mkdir()

    def drop(self, name: str, content: bytes = FASTA) -> Path:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return file

    def look(self, now: float) -> Scan:
        seen = scan(self.folder, self.memory, now=now, stable_seconds=STABLE)
        self.memory = seen.memory
        return seen

    def names(self, now: float) -> list[str]:
        return [a.name for a in self.look(now).arrivals]


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_an_empty_inbox_is_made_and_is_no_error(tmp_path: Path) -> None:
    assert scan(tmp_path / "new", {}, now=0, stable_seconds=STABLE).arrivals == []


def test_a_file_that_grows_waits_until_it_has_stood_still(inbox: Inbox) -> None:
    inbox.drop("s.fa", b">a\n")
    assert inbox.names(0) == []
    inbox.drop("s.fa", b">a\nACGT\n")
    assert inbox.names(STABLE + 1) == []
    assert inbox.look(STABLE + 2).waiting == ["s.fa"]
    assert inbox.names(2 * STABLE + 1) == ["s"]
    assert inbox.names(9 * STABLE) == []


def test_a_done_marker_ends_the_waiting(inbox: Inbox) -> None:
    inbox.drop("s.fa.gz", gzip.compress(FASTA))
    inbox.drop("s.fa.gz.done", b"")
    assert inbox.names(0) == ["s"]


def test_partial_and_hidden_files_are_not_looked_at(inbox: Inbox) -> None:
    for name in (".s.fa", "s.fa.part", "s.fa.tmp"):
        inbox.drop(name)
    assert inbox.names(0) == []
    assert inbox.look(1000).waiting == []


def test_a_file_that_changes_afterwards_is_seen_again(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.names(0)
    assert inbox.names(STABLE) == ["s"]
    inbox.drop("s.fa", FASTA * 2)
    assert inbox.names(STABLE + 1) == []
    assert inbox.names(3 * STABLE) == ["s"]


def test_a_folder_is_one_sample_of_all_its_files(inbox: Inbox) -> None:
    inbox.drop("run 1/a.fa")
    inbox.drop("run 1/b.fq", FASTQ)
    inbox.names(0)
    (arrival,) = inbox.look(STABLE).arrivals
    assert (arrival.name, [p.name for p in arrival.paths]) == ("run_1", ["a.fa", "b.fq"])


def test_mates_are_one_sample_and_a_lone_mate_waits_for_the_other(inbox: Inbox) -> None:
    inbox.drop("s_R1.fastq", FASTQ)
    inbox.names(0)
    assert inbox.look(STABLE).waiting == ["s_R1.fastq"]
    inbox.drop("s_R2.fastq", FASTQ)
    inbox.names(STABLE + 1)
    (arrival,) = inbox.look(3 * STABLE).arrivals
    assert (arrival.name, len(arrival.paths)) == ("s", 2)
    inbox.drop("t_R1.fastq", FASTQ)
    inbox.names(1000)
    assert inbox.names(1000 + MATE_PATIENCE * STABLE) == ["t_R1"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("protein.fa", b">p\nMKLFEIL\n", "looks like protein"),
        ("empty.fa", b"", "empty"),
        ("notes.docx", b"PK\x03\x04rubbish", "neither FASTA nor FASTQ"),
        ("cut.fa.gz", gzip.compress(FASTA * 1000)[:40], "cut|truncated|end"),
    ],
)
def test_what_cannot_be_a_sample_is_set_aside_once_with_its_reason(
    inbox: Inbox, name: str, content: bytes, reason: str
) -> None:
    inbox.drop(name, content)
    inbox.drop("good.fa")
    inbox.names(0)
    seen = inbox.look(STABLE)
    assert [a.name for a in seen.arrivals] == ["good"]
    (refusal,) = seen.refusals
    assert refusal.moved_to.read_bytes() == content
    told = refusal.moved_to.with_name(refusal.moved_to.name + ".reason.txt").read_text()
    assert told == refusal.reason + "\n"
    assert re.search(reason, told)
    assert inbox.look(2 * STABLE).refusals == []


def test_setting_aside_never_overwrites(inbox: Inbox) -> None:
    for number, content in enumerate((b"one", b"two")):
        inbox.drop("x.bin", content)
        inbox.names(number * 100)
        inbox.look(number * 100 + STABLE)
    kept = [p.read_bytes() for p in (inbox.folder.parent / "set_aside").iterdir() if p.suffix == ".bin"]
    assert sorted(kept) == [b"one", b"two"]


def test_two_files_of_one_name_are_both_reported(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.drop("s.fasta", FASTA * 3)
    inbox.names(0)
    assert inbox.names(STABLE) == ["s", "s"]
