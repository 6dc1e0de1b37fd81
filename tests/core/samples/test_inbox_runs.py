"""A sequencer's run and a sample sheet in the inbox: several samples, each under its name, never mixed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.inbox import FASTA, STABLE, Inbox
from virnucpro_core.pipeline.steps import chunk_sample
from virnucpro_core.samples.finding import find_samples
from virnucpro_core.samples.inbox import PATIENCE
from virnucpro_core.samples.inbox_state import FILE, moved_entries, noted_entries
from virnucpro_core.samples.sample import list_samples

RUN = (
    "Undetermined_S0_L001_R1_001",
    "ProjX/pat1_S1_L001_R1_001",
    "ProjX/pat1_S1_L002_R1_001",
    "ProjX/pat2_S2_L001_R1_001",
    "ProjY/pat1_S3_L001_R1_001",
)
ILLUMINA = b"[Header]\nFileFormatVersion,2\n\n[BCLConvert_Data]\nSample_ID,index\npat1,ACGT\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def reads(text: str) -> bytes:
    """A FASTQ file of its own for each text."""
    return f"@{text}\nACGT\n+\nIIII\n".encode()


def drop_run(inbox: Inbox, folder: str, names: tuple[str, ...] = RUN) -> None:
    for name in names:
        inbox.drop(f"{folder}/{name}.fastq", reads(f"{folder}-{name.replace('/', '-')}"))


def arrive(inbox: Inbox, now: float = 0) -> list[str]:
    inbox.look(now)
    return inbox.names(now + STABLE)


def files_of(inbox: Inbox, sample: str) -> list[str]:
    return [file.path.name for file in inbox.sample(sample).inputs]


def test_a_run_is_the_samples_that_predict_makes_of_it(inbox: Inbox) -> None:
    drop_run(inbox, "run")
    inbox.drop("run/SampleSheet.csv", ILLUMINA)
    inbox.drop("run/patients.csv", b"sample,age\npat1,40\n")
    named = [one.name for one in find_samples([inbox.folder / "run"])]
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == sorted(named) == ["ProjX_pat1", "ProjY_pat1", "Undetermined", "pat2"]
    assert files_of(inbox, "ProjX_pat1") == ["pat1_S1_L001_R1_001.fastq", "pat1_S1_L002_R1_001.fastq"]
    (news,) = seen.news
    assert "samples ProjX_pat1, pat2, ProjY_pat1, Undetermined" in news.said
    assert "not sequence files, ignored: SampleSheet.csv, patients.csv" in news.said
    assert inbox.look(100).news == []
    # Another run has a patient of the same name, who is another sample.
    drop_run(inbox, "run2", ("A/pat2_S1_L001_R1_001", "A/pat3_S2_L001_R1_001"))
    inbox.look(200)
    seen = inbox.look(200 + STABLE)
    assert seen.registered == ["A_pat2", "pat3"]
    assert (
        "sample 'pat2' already stands for other sequences: this one is sample 'A_pat2'" in seen.news[0].said
    )


def test_of_a_run_that_changes_each_sample_keeps_its_name(inbox: Inbox) -> None:
    drop_run(inbox, "run")
    names = arrive(inbox)
    before = {name: inbox.sample(name) for name in names}
    inbox.drop("run/ProjX/pat2_S2_L001_R1_001.fastq", reads("longer than before"))
    inbox.drop("run/ProjX/pat4_S4_L001_R1_001.fastq", reads("new"))
    assert arrive(inbox, 100) == sorted([*names, "pat4"])
    after = {name: inbox.sample(name) for name in names}
    assert [name for name in names if after[name] != before[name]] == ["pat2"]
    assert "now stands for the later files" in inbox.said()["run"]


def test_one_bad_file_stops_no_other_sample_of_the_run(inbox: Inbox) -> None:
    drop_run(inbox, "run")
    inbox.drop("run/bad_S8_L001_R1_001.fastq", b"<html>no such page</html>\n")
    empty = inbox.drop("run/control_S9_L001_R1_001.fastq", b"")
    inbox.look(0)
    assert inbox.names(STABLE) == []  # an empty file may still be coming
    assert "looks incomplete" in inbox.said()["run"]
    inbox.look(PATIENCE * STABLE)
    assert list_samples(inbox.home) == ["ProjX_pat1", "ProjY_pat1", "Undetermined", "pat2"]
    said = inbox.said()["run"]
    assert "bad was refused: " in said
    assert "control was refused: " in said
    assert (inbox.folder / "run").exists()
    empty.write_bytes(reads("whole"))
    inbox.drop("run/bad_S8_L001_R1_001.fastq", reads("whole, too"))
    assert {"bad", "control"} < set(arrive(inbox, 1000))
    assert "refused" not in inbox.said()["run"]


def test_a_run_without_a_good_file_is_set_aside(inbox: Inbox) -> None:
    for name in ("a_S1_L001_R1_001", "b_S2_L001_R1_001"):
        inbox.drop(f"run/{name}.fastq", b"<html></html>\n")
    inbox.look(0)
    (news,) = inbox.look(STABLE).news
    assert news.kind == "refused"
    assert "none of its 2 samples can be read; a: " in news.said
    assert (inbox.home / "set_aside" / "run" / "a_S1_L001_R1_001.fastq").exists()


def test_a_sample_that_its_run_refuses_stays_beside_the_others(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    drop_run(inbox, "run")
    twice = inbox.drop("run/twice_S8_L001_R1_001.fastq", reads("a") + reads("b") + reads("a"))
    names = arrive(inbox)
    with pytest.raises(Exception, match="the same id"):
        inbox.call("twice")
    seen = inbox.look(100)
    assert (seen.news, seen.removed) == ([], [])  # the others are not read yet
    for name in names:
        if name != "twice":
            inbox.call(name)
    seen = inbox.look(110)
    assert [(n.kind, n.sample) for n in seen.news] == [("refused", "")]
    assert "sample 'twice': " in seen.news[0].said
    assert 'use `duplicates = "rename"` in virnucpro.toml in the folder' in seen.news[0].said
    assert inbox.look(120).news == []
    assert twice.exists()
    assert "twice" in list_samples(inbox.home)
    twice.write_bytes(reads("corrected"))
    arrive(inbox, 200)
    inbox.call("twice")
    inbox.look(300)
    assert [(m.name, m.kind, m.sample_names) for m in moved_entries(inbox.home)] == [
        (b"run", "taken", ["ProjX_pat1", "pat2", "ProjY_pat1", "Undetermined", "twice"])
    ]


def test_a_run_that_was_read_moves_away_as_a_whole(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    drop_run(inbox, "run")
    names = arrive(inbox)
    for name in names[1:]:
        inbox.call(name)
    inbox.look(50)
    assert (inbox.folder / "run").exists()  # one sample is not read
    inbox.call(names[0])
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            inbox.look(60)
    inbox.look(70)
    assert not (inbox.folder / "run").exists()
    files = [file.path for name in names for file in inbox.sample(name).inputs]
    assert {file.relative_to(inbox.home).parts[:2] for file in files} == {("done", "run")}
    assert all(file.exists() for file in files)
    for name in names:
        chunk_sample(inbox.sample(name))  # nothing is refused as changed
    assert noted_entries(inbox.home) == []


def test_a_sheet_in_a_folder_names_its_samples(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"cutoff = 0.2\nmin-length = 3")
    drop_run(inbox, "run", ("a_S1_L001_R1_001", "b_S2_L001_R1_001", "c_S3_L001_R1_001"))
    sheet = inbox.drop(
        "run/samples.csv",
        b"sample,fastq_1,cutoff\nred,a_S1_L001_R1_001.fastq,0.9\nred,b_S2_L001_R1_001.fastq,\nblue,missing.fastq,7\n",
    )
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert (seen.registered, [n.kind for n in seen.news]) == ([], ["failing"])
    said = inbox.said()["run"]
    assert "samples.csv: row 4" in said
    assert "no such file" in said
    assert "cutoff" in said
    assert (inbox.folder / "run").exists()
    sheet.write_bytes(
        b"sample,fastq_1,cutoff\nred,a_S1_L001_R1_001.fastq,0.9\nblue,b_S2_L001_R1_001.fastq,\n"
    )
    assert arrive(inbox, 100) == ["blue", "red"]
    found = {name: inbox.sample(name).settings for name in ("blue", "red")}
    assert {n: (s.cutoff, s.min_length) for n, s in found.items()} == {"blue": (0.2, 3), "red": (0.9, 3)}
    assert "samples red, blue" in inbox.said()["run"]
    assert "not in samples.csv, left out: c_S3_L001_R1_001.fastq" in inbox.said()["run"]
    # The sheet is corrected once more: a new name is a new sample, and the other keeps what it has.
    sheet.write_bytes(
        b"sample,fastq_1,cutoff\nred,a_S1_L001_R1_001.fastq,0.9\ngreen,b_S2_L001_R1_001.fastq,\n"
    )
    assert arrive(inbox, 200) == ["green", "red"]
    assert list_samples(inbox.home) == ["blue", "green", "red"]


def test_a_sheet_by_itself_names_files_outside_the_inbox(inbox: Inbox, tmp_path: Path) -> None:
    data = tmp_path / "storage"
    data.mkdir()
    for name in ("a", "b"):
        (data / f"{name}.fa").write_bytes(f">{name}\nACGA\n".encode())
    inbox.drop("samples.csv", f"sample,fasta\none,{data}/a.fa\ntwo,{data}/b.fa\n".encode())
    assert arrive(inbox) == ["one", "two"]
    for name in ("one", "two"):
        inbox.call(name)
    inbox.drop("virnucpro.toml", b"move-taken = true")
    inbox.look(60)
    assert sorted(f.name for f in (inbox.home / "done").iterdir()) == ["samples.csv"]
    assert inbox.sample("one").inputs[0].path == data / "a.fa"
    # The name stands for other sequences now.
    inbox.drop("more.tsv", f"sample\tfasta\none\t{data}/b.fa\n".encode())
    assert arrive(inbox, 100) == []
    assert (
        "more.tsv: row 2 (one): sample 'one' already stands for other sequences" in inbox.said()["more.tsv"]
    )


def test_a_sheet_beside_its_files_names_them(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    for mate in (1, 2):
        inbox.drop(f"x_R{mate}.fq", f"@r {mate}:N:0:A\nACG{'AC'[mate - 1]}\n+\nIIII\n".encode())
    inbox.drop("y.fa")
    inbox.drop("y.toml", b"cutoff = 0.3")
    inbox.drop("other.fa", b">o\nTTTT\n")
    inbox.look(0)
    inbox.drop("sheet.csv", b"sample,fastq_1,fastq_2,fasta\nred,x_R1.fq,x_R2.fq,\nblue,,,y.fa\n")
    inbox.drop("late.fa.part")
    assert inbox.names(STABLE) == ["other"]
    assert inbox.said()["y.fa"] == "waits for sheet.csv, which names it"
    seen = inbox.look(2 * STABLE)
    assert seen.registered == ["blue", "red"]
    assert [n.entries for n in seen.news] == [(b"sheet.csv",)]
    assert files_of(inbox, "red") == ["x_R1.fq", "x_R2.fq"]
    assert (inbox.sample("blue").settings.cutoff, inbox.sample("red").settings.cutoff) == (0.3, 0.5)
    for name in ("blue", "red", "other"):
        inbox.call(name)
    inbox.look(50)
    assert sorted(f.name for f in inbox.folder.iterdir()) == ["late.fa.part", "virnucpro.toml"]
    assert [f.path for f in inbox.sample("red").inputs] == [
        inbox.home / "done" / f"x_R{n}.fq" for n in (1, 2)
    ]


def test_a_sheet_that_comes_after_its_files_makes_samples_of_its_own(inbox: Inbox) -> None:
    file = inbox.drop("x.fa")
    assert arrive(inbox) == ["x"]
    chunk_sample(inbox.sample("x"))
    inbox.drop("sheet.csv", b"sample,fasta\nmine,x.fa\n")
    assert arrive(inbox, 100) == ["mine", "x"]
    chunk_sample(inbox.sample("mine"))
    assert list_samples(inbox.home) == ["mine", "x"]
    file.write_bytes(FASTA * 2)
    assert "mine" in arrive(inbox, 200)
    assert "it became sample 'mine', which now stands for the later files" in inbox.said()["sheet.csv"]


def test_a_file_that_changes_beside_its_sheet_keeps_what_the_sheet_says(inbox: Inbox) -> None:
    for lane in (1, 2):
        inbox.drop(f"l{lane}.fa", f">a{lane}\nACGT\n".encode())
    inbox.drop("v.fa", b">v\nACGT\n")
    inbox.drop("sheet.csv", b"sample,fasta,cutoff\nRA,l1.fa,0.9\nRA,l2.fa,\nkid,v.fa,0.8\n")
    assert arrive(inbox) == ["RA", "kid"]
    for name in ("RA", "kid"):
        chunk_sample(inbox.sample(name))
    inbox.drop("l2.fa", b">a2\nACGTACGT\n")
    assert {"RA"} <= {*arrive(inbox, 100)}
    assert list_samples(inbox.home) == ["RA", "kid"]
    assert files_of(inbox, "RA") == ["l1.fa", "l2.fa"]
    assert (inbox.sample("RA").settings.cutoff, inbox.sample("RA").bytes) == (0.9, 9 + 13)
    assert inbox.sample("kid").content != ""  # nothing of it has changed


def test_a_sheet_with_settings_that_exclude_each_other_stops_nobody(inbox: Inbox) -> None:
    inbox.drop("x.fa")
    inbox.drop("y.fa", b">y\nACGA\n")
    inbox.drop("sheet.csv", b"sample,fasta,cutoff,preset\nmine,x.fa,0.5,relaxed\n")
    assert arrive(inbox) == ["y"]
    assert "sheet.csv: row 2 (mine): " in inbox.said()["sheet.csv"]
    assert "cannot be used together" in inbox.said()["sheet.csv"]


@pytest.mark.parametrize("text", ["Sample_ID,fastq_1\na,e.fq\n", "sample,fastq_1\na,e.fq\n"])
def test_a_sheet_in_a_folder_with_faults_is_never_passed_over(inbox: Inbox, text: str) -> None:
    for name in ("e", "f"):
        inbox.drop(f"run/{name}.fq", reads(name))
    inbox.drop("run/sheet.csv", text.encode("utf-8" if "ID" in text else "utf-16"))
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert seen.registered == []
    assert "UTF-16" in seen.news[0].said or "unknown column 'sample_id'" in seen.news[0].said


def test_a_sheet_takes_no_file_of_another_folder(inbox: Inbox) -> None:
    inbox.drop("run/x.fa")
    sheet = inbox.drop("sheet.csv", b"sample,fasta\nmine,run/x.fa\n")
    assert arrive(inbox) == ["run"]
    said = inbox.said()["sheet.csv"]
    assert "row 2 (mine): x.fa is in another folder of the inbox; put the sheet into that folder" in said
    sheet.write_bytes(b"sample,fasta\nmine,absent.fa\n")
    inbox.drop("absent.fa.part")
    inbox.look(100)
    inbox.look(100 + STABLE)
    assert inbox.said()["sheet.csv"] == "waits for absent.fa.part"
    (inbox.folder / "absent.fa.part").rename(inbox.folder / "absent.fa")
    assert arrive(inbox, 200) == ["mine"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("prices.csv", b"item,price\nphi,29\n", "neither a sample sheet nor a file of sequences"),
        ("wide.csv", "sample,fasta\na,x.fa\n".encode("utf-16"), "UTF-16"),
        ("book.tsv", b"PK\x03\x04" + bytes([0xFF] * 30), "spreadsheet"),
        ("empty.csv", b"", "neither a sample sheet nor a file of sequences"),
    ],
)
def test_a_table_that_is_no_sheet_is_set_aside(inbox: Inbox, name: str, content: bytes, why: str) -> None:
    inbox.drop(name, content)
    inbox.look(0)
    (news,) = inbox.look(STABLE).news
    assert news.kind == "refused"
    assert why in news.said
    assert (inbox.home / "set_aside" / name).exists()


def test_a_folder_has_one_sheet(inbox: Inbox) -> None:
    inbox.drop("run/a.fa")
    for name in ("one.csv", "two.csv"):
        inbox.drop(f"run/{name}", b"sample,fasta\na,a.fa\n")
    assert arrive(inbox) == []
    assert "two sample sheets: one.csv and two.csv; leave one of them" in inbox.said()["run"]
    (inbox.folder / "run" / "two.csv").unlink()
    assert arrive(inbox, 100) == ["a"]


def test_the_state_of_an_earlier_version_is_read(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    assert arrive(inbox) == ["s"]
    with closing(sqlite3.connect(inbox.home / FILE)) as connection, connection:
        connection.execute("ALTER TABLE entries RENAME COLUMN samples TO sample")
        connection.execute("CREATE TABLE moved (name PRIMARY KEY, kind, said, sample, moved_to, at)")
        connection.execute("INSERT INTO moved VALUES (?, 'taken', '', 'u', ?, 7.0)", (b"u.fa", b"/done/u.fa"))
    assert [row.sample_names for row in noted_entries(inbox.home)] == [["s"]]
    inbox.drop("t.fa", FASTA * 2)
    assert arrive(inbox, 100) == ["t"]
    assert [row.sample_names for row in noted_entries(inbox.home)] == [["s"], ["t"]]
    assert [(one.name, one.sample_names, one.at) for one in moved_entries(inbox.home)] == [
        (b"u.fa", ["u"], 7.0)
    ]
