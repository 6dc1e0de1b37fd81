"""A dropped file counts when it is whole; which sample it makes, and what becomes of it when it changes."""

import gzip
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.support.inbox import FASTA, FASTQ, SETTINGS, STABLE, Inbox
from virnucpro_core.files.locks import locked
from virnucpro_core.samples.content import with_content
from virnucpro_core.samples.inbox import PATIENCE, look
from virnucpro_core.samples.inbox_state import InboxState
from virnucpro_core.samples.sample import list_samples, open_sample


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_an_empty_inbox_is_made_and_is_no_error(tmp_path: Path) -> None:
    assert look(tmp_path / "new", lambda _: SETTINGS, now=0, stable_seconds=STABLE).registered == []
    assert (tmp_path / "new" / "inbox").is_dir()


def test_a_file_that_grows_waits_until_it_has_stood_still(inbox: Inbox) -> None:
    inbox.drop("s.fa", b">a\n")
    assert inbox.names(0) == []
    inbox.drop("s.fa", b">a\nACGT\n")
    assert inbox.names(STABLE + 1) == []
    assert inbox.look(STABLE + 2).arriving == 1
    assert inbox.names(2 * STABLE + 1) == ["s"]
    assert inbox.names(9 * STABLE) == []


def test_a_done_marker_ends_the_waiting_once(inbox: Inbox) -> None:
    inbox.drop("s.fa.gz", gzip.compress(FASTA, mtime=0))
    inbox.drop("s.fa.gz.done", b"")
    assert inbox.names(0) == ["s"]
    inbox.drop("s.fa.gz", gzip.compress(FASTA * 2, mtime=0))
    assert inbox.names(1) == []  # the marker is that of the earlier file
    assert inbox.names(1 + STABLE) == ["s"]


def test_partial_and_hidden_files_and_lone_markers_are_not_looked_at(inbox: Inbox) -> None:
    for name in (".s.fa", "s.fa.part", "s.fa.TMP", "t_R1.fastq.done"):
        inbox.drop(name)
    assert inbox.names(0) == []
    assert inbox.look(1000).arriving == 0


def test_a_registered_file_was_not_read(inbox: Inbox) -> None:
    """A look takes as long for 30 GB as for nothing: what the bytes are, a run finds out."""
    file = inbox.drop("huge.fa", b">a\n" + b"ACGT" * (1 << 20))
    with file.open("r+b") as stream:
        stream.truncate(30 << 30)  # sparse
    inbox.look(0)
    began = time.monotonic()
    assert inbox.names(STABLE) == ["huge"]
    assert time.monotonic() - began < 5
    sample = inbox.sample("huge")
    assert (sample.content, sample.bytes) == ("", 30 << 30)


def test_one_record_of_any_length_is_not_read_to_its_end(inbox: Inbox) -> None:
    inbox.drop("contig.fa", b">a\n" + b"ACGT" * 3_000_000)
    inbox.drop("long_reads.fq", b"@a\n" + b"ACGT" * 1_000_000 + b"\n+\n" + b"IIII" * 1_000_000 + b"\n")
    inbox.look(0)
    with mock.patch("virnucpro_core.sequences.text._record", side_effect=lambda entry, *_: entry) as seen:
        assert inbox.names(STABLE) == ["contig", "long_reads"]
    assert all(len(call.args[0].sequence) <= 1 << 20 for call in seen.call_args_list)


def test_the_clock_that_counts_begins_anew_with_the_machine_and_knows_no_date(inbox: Inbox) -> None:
    """However the machine's date jumps, a file waits `stable_seconds`; after a restart, once more."""
    file = inbox.drop("s.fa")
    os.utime(file, (time.time() + 86_400, time.time() + 86_400))
    assert inbox.names(5_000_000) == []
    with mock.patch("virnucpro_core.samples.inbox_state._boot", return_value="another start of the machine"):
        assert inbox.names(3) == []
        assert inbox.names(3 + STABLE) == ["s"]
    inbox.drop("t.fa")
    assert inbox.names(1000) == []
    assert inbox.names(10) == []  # should it run backwards all the same, the waiting begins anew
    assert inbox.names(10 + STABLE) == ["t"]


def test_a_partial_copy_that_became_a_sample_gives_its_name_to_the_whole_file(inbox: Inbox) -> None:
    inbox.drop("s.fa", FASTA)
    inbox.look(0)
    assert inbox.names(STABLE) == ["s"]
    partial = with_content(inbox.sample("s"))
    partial.results.mkdir()
    (partial.results / "run.json").write_text("{}")
    (partial.folder / "chunks").mkdir()
    inbox.drop("s.fa", FASTA + b">b\nTTTT\n")
    assert inbox.names(STABLE + 1) == []
    seen = inbox.look(3 * STABLE)
    assert seen.registered == ["s"]
    assert list_samples(inbox.home) == ["s"]
    (news,) = seen.news
    assert "changed after it became sample 's'" in news.said
    whole = with_content(inbox.sample("s"))
    assert whole.content != partial.content
    assert not (whole.folder / "chunks").exists()
    assert (inbox.home / "superseded" / f"s-{partial.content[:8]}" / "run.json").exists()
    assert open_sample(inbox.home, "s").earlier == ""


def test_a_file_that_is_copied_again_unchanged_costs_no_product(inbox: Inbox) -> None:
    file = inbox.drop("s.fa")
    inbox.look(0)
    inbox.look(STABLE)
    made = with_content(inbox.sample("s"))
    (made.folder / "chunks").mkdir()
    os.utime(file, (1, 1))
    inbox.look(STABLE + 1)
    assert inbox.names(3 * STABLE) == ["s"]
    assert inbox.sample("s").content == ""
    assert with_content(inbox.sample("s")).content == made.content
    assert (made.folder / "chunks").exists()


def test_a_later_file_of_a_name_that_went_away_is_a_sample_of_its_own(inbox: Inbox) -> None:
    inbox.drop("contigs.fasta")
    inbox.look(0)
    assert inbox.names(STABLE) == ["contigs"]
    with_content(inbox.sample("contigs"))
    (inbox.folder / "contigs.fasta").unlink()
    inbox.look(20)
    inbox.drop("contigs.fasta", FASTA * 2)
    inbox.look(30)
    seen = inbox.look(50)
    (name,) = seen.registered
    assert name.startswith("contigs-")
    assert "already stands for other sequences" in seen.news[0].said
    assert inbox.sample("contigs").bytes == len(FASTA)
    inbox.drop("contigs.fasta", FASTA * 3)  # and in its own place it keeps its name
    inbox.look(60)
    assert inbox.names(80) == [name]


def test_a_look_that_was_killed_before_it_noted_a_partial_copy_leaves_one_sample(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.look(0)
    with mock.patch.object(InboxState, "_write"):
        inbox.look(STABLE)
    inbox.drop("s.fa", FASTA * 2)
    inbox.look(20)
    assert inbox.names(40) == ["s"]
    assert list_samples(inbox.home) == ["s"]
    assert inbox.sample("s").bytes == 2 * len(FASTA)


def test_while_a_process_works_on_the_earlier_file_the_later_one_waits(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.look(0)
    inbox.look(STABLE)
    inbox.drop("s.fa", FASTA * 2)
    inbox.look(20)
    with locked(inbox.sample("s").lock("chunks"), busy=""):
        seen = inbox.look(40)
        assert [n.kind for n in seen.news] == ["failing"]
        assert inbox.look(41).news == []
        assert "cannot take the changed files" in inbox.said()["s.fa"]
    assert inbox.names(50) == ["s"]


def test_a_folder_is_one_sample_of_the_sequence_files_at_any_depth(inbox: Inbox) -> None:
    inbox.drop("run 1/a.fa")
    inbox.drop("run 1/lane 2/b.fq", FASTQ)
    inbox.drop("run 1/lane 3.done/c.fq", FASTQ)
    inbox.look(0)
    assert inbox.names(STABLE) == ["run_1"]
    assert [f.path.name for f in inbox.sample("run_1").inputs] == ["a.fa", "b.fq", "c.fq"]


def test_a_delivery_folder_is_one_sample_and_its_other_files_are_named(inbox: Inbox, shared: Path) -> None:
    source = shared / "cases" / "delivery_folder" / "run4"
    for file in source.iterdir():
        inbox.drop(f"run4/{file.name}", file.read_bytes())
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == ["run4"]
    assert [f.path.name for f in inbox.sample("run4").inputs] == ["reads_1.fq", "reads_2.fq"]
    (news,) = seen.news
    assert news.said == "not sequence files, ignored: MD5.txt, Thumbs.db, reads_1.fq.fai"
    inbox.drop("run4/MD5.txt", b"come later")  # nothing that the sample is made of
    assert inbox.names(100) == inbox.names(200) == []


def test_a_folder_without_sequence_files_leaves_no_sample_and_stops_nobody(inbox: Inbox) -> None:
    (inbox.folder / "empty").mkdir()
    (inbox.folder / "marked").mkdir()
    inbox.drop("marked.done", b"")
    inbox.drop("copying/reads.fq.part", FASTQ)
    inbox.drop("notes/readme.txt")
    inbox.drop("good.fa")
    seen = inbox.look(0)
    assert [n.entries for n in seen.news] == [(b"marked",)]
    assert "no FASTA or FASTQ file" in seen.news[0].said
    assert inbox.names(STABLE) == ["good"]
    assert inbox.said()["empty"] == "an empty folder"
    assert inbox.said()["copying"] == "reads.fq.part is still arriving: waits until it is complete or deleted"
    assert list_samples(inbox.home) == ["good"]
    seen = inbox.look(PATIENCE * STABLE)
    assert {n.entries for n in seen.news} == {(b"notes",)}
    assert inbox.said().keys() == {"copying", "empty", "good.fa"}


@pytest.mark.parametrize("beside", ["", "a.fa"])
@pytest.mark.parametrize(
    "name",
    ["b.fa.part", "b.fa.PARTIAL", "b.fa.tmp", "b.fa.crdownload", "deep/b.fa.filepart", "deep.part/b.fa"],
)
def test_a_folder_waits_for_an_unfinished_file_however_long(inbox: Inbox, name: str, beside: str) -> None:
    if beside:
        inbox.drop(f"run/{beside}")
    unfinished = inbox.drop(f"run/{name}")
    inbox.look(0)
    for now in (STABLE, PATIENCE * STABLE, 100 * PATIENCE * STABLE):
        seen = inbox.look(now)
        assert (seen.registered, seen.news, seen.arriving) == ([], [], 1)
        assert inbox.said()["run"] == f"{name} is still arriving: waits until it is complete or deleted"
    inbox.drop("run.done", b"")  # somebody says so, but the file is not complete
    assert inbox.look(200 * PATIENCE * STABLE).news == []
    unfinished.rename(inbox.folder / "run" / "b.fa")
    assert inbox.names(201 * PATIENCE * STABLE) == ["run"]
    assert [f.path.name for f in inbox.sample("run").inputs] == [*filter(None, [beside]), "b.fa"]


def test_a_folder_waits_while_anything_in_it_moves(inbox: Inbox) -> None:
    inbox.drop("run/a.fa")
    inbox.drop("run/.b.fa.Xy12", b">")  # as rsync writes
    inbox.look(0)
    inbox.drop("run/.b.fa.Xy12", b">b\n")
    assert inbox.names(STABLE) == []
    (inbox.folder / "run/.b.fa.Xy12").rename(inbox.folder / "run/b.fa")
    inbox.look(STABLE + 1)
    assert inbox.names(3 * STABLE) == ["run"]
    assert len(inbox.sample("run").inputs) == 2


def test_mates_are_one_sample_and_a_lone_mate_waits_for_the_other(inbox: Inbox) -> None:
    inbox.drop("s_R1.fastq", FASTQ)
    inbox.look(0)
    inbox.look(STABLE)
    assert inbox.said()["s_R1.fastq"] == "waits for its mate"
    inbox.drop("s_R2.fastq", FASTQ)
    inbox.look(STABLE + 1)
    assert inbox.names(3 * STABLE) == ["s"]
    assert len(inbox.sample("s").inputs) == 2
    inbox.drop("t_R1.fastq", FASTQ)
    inbox.look(1000)
    seen = inbox.look(1000 + PATIENCE * STABLE)
    assert seen.registered == ["t_R1"]
    assert "no file of the other mate" in seen.news[0].said


@pytest.mark.parametrize("name", ["s_R2.fastq.part", "s_R2.fastq"])
def test_a_mate_waits_for_the_other_however_long_its_copy_takes(inbox: Inbox, name: str) -> None:
    inbox.drop("s_R1.fastq", FASTQ)
    for second in range(0, 500, 5):
        inbox.drop(name, FASTQ * (1 + second))
        assert inbox.names(second) == []
    assert inbox.said()["s_R1.fastq"] == "waits for s_R2.fastq"
    (inbox.folder / name).rename(inbox.folder / "s_R2.fastq")
    inbox.look(500)
    assert inbox.names(500 + STABLE) == ["s"]


def test_a_mate_that_comes_after_all_makes_the_pair(inbox: Inbox) -> None:
    inbox.drop("t_R1.fastq", FASTQ)
    inbox.look(0)
    assert inbox.names(PATIENCE * STABLE) == ["t_R1"]
    inbox.drop("t_R2.fastq", FASTQ)
    inbox.look(1000)
    assert inbox.names(1000 + STABLE) == ["t"]
    assert len(inbox.sample("t").inputs) == 2
    said = "earlier sample t_R1, of other files, stays; `virnucpro samples remove t_R1` deletes it"
    assert all(inbox.said()[f"t_R{mate}.fastq"].startswith(said) for mate in (1, 2))


def reads(*ids: str, mate: int = 0) -> bytes:
    return "".join(f"@{i}{f' {mate}:N:0:A' if mate else ''}\nACGT\n+\nIIII\n" for i in ids).encode()


def test_lanes_and_mates_are_one_sample_and_index_reads_are_left_out(inbox: Inbox) -> None:
    for lane in (1, 2):
        for mate in (1, 2):
            inbox.drop(f"pat1_S1_L00{lane}_R{mate}_001.fastq", reads(f"m:{lane}", mate=mate))
        inbox.drop(f"pat1_S1_L00{lane}_I1_001.fastq", reads(f"m:{lane}", mate=1))
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == ["pat1"]
    assert [file.path.name for file in inbox.sample("pat1").inputs] == [
        f"pat1_S1_L00{lane}_R{mate}_001.fastq" for lane in (1, 2) for mate in (1, 2)
    ]
    assert "index reads, left out" in seen.news[0].said
    assert inbox.names(2 * STABLE) == []
    inbox.drop("pat1_S1_L003_R1_001.fastq", reads("m:3", mate=1))
    inbox.drop("pat1_S1_L003_R2_001.fastq", reads("m:3", mate=2))
    inbox.look(1000)
    assert inbox.names(1000 + STABLE) == ["pat1"]
    assert len(inbox.sample("pat1").inputs) == 6


def test_the_three_files_of_a_run_of_sra(inbox: Inbox) -> None:
    inbox.drop("SRR9.fastq", reads("SRR9.3"))
    inbox.drop("SRR9_1.fastq", reads("SRR9.1", "SRR9.2"))
    inbox.drop("SRR9_2.fastq", reads("SRR9.1", "SRR9.2"))
    inbox.look(0)
    assert inbox.names(STABLE) == ["SRR9"]
    assert len(inbox.sample("SRR9").inputs) == 3


def test_numbered_samples_are_told_apart_by_their_reads(inbox: Inbox) -> None:
    for number in (1, 2):
        inbox.drop(f"patient_{number}.fastq", reads(f"p{number}"))
    inbox.look(0)
    assert inbox.names(STABLE) == ["patient_1", "patient_2"]
    assert inbox.names(2 * STABLE) == []


def test_files_named_as_mates_that_are_none_are_set_aside(inbox: Inbox) -> None:
    inbox.drop("x_R1.fastq", reads("a"))
    inbox.drop("x_R2.fastq", reads("b"))
    inbox.drop("good.fa")
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == ["good"]
    assert {news.kind for news in seen.news} == {"refused"}
    assert all("not the mate of" in news.said for news in seen.news)
