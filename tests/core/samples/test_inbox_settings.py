"""Samples of the inbox take their settings from files that lie there; what was taken may move away."""

from pathlib import Path

import pytest

from tests.support.inbox import FASTA, FASTQ, SETTINGS, STABLE, Inbox
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.steps import chunk_sample
from virnucpro_core.samples.inbox_settings import SettingsFiles, lonely
from virnucpro_core.samples.inbox_state import moved_entries, noted_entries
from virnucpro_core.samples.sample import list_samples, open_sample

TWICE = b">a\nACGT\n>b\nACGT\n>a\nACGT\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def arrive(inbox: Inbox, now: float = 0) -> list[str]:
    inbox.look(now)
    return inbox.names(now + STABLE)


def test_the_nearest_file_decides_each_setting(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"chunk-size = 300\ncutoff = 0.1\noverlong = 'isolate'")
    inbox.drop("run/virnucpro.toml", b"cutoff = 0.2\nchunk-size = 400")
    inbox.drop("run.toml", b"cutoff = 0.3")
    inbox.drop("run/a.fa")
    inbox.drop("s.fa")
    inbox.drop("m.toml", b"cutoff = 0.4")
    inbox.drop("m_R1.fq", FASTQ)
    inbox.drop("m_R2.fq", FASTQ.replace(b"ACGT", b"ACGA"))
    inbox.drop("x.y.fa.gz.toml", b"cutoff = 0.5")
    inbox.drop("x.y.fasta", FASTA)
    inbox.drop("x.y.toml", b"cutoff = 0.6")
    assert arrive(inbox) == ["m", "run", "s", "x_y"]
    found = {n: inbox.sample(n).settings for n in ("m", "run", "s", "x_y")}
    assert {n: (s.chunk_size, s.cutoff, s.overlong) for n, s in found.items()} == {
        "m": (300, 0.4, "isolate"),
        "run": (400, 0.3, "isolate"),
        "s": (300, 0.1, "isolate"),
        "x_y": (300, 0.6, "isolate"),
    }
    assert "virnucpro.toml" not in inbox.said()["run"]  # it is not an ignored file


def test_a_fault_in_settings_is_no_fault_of_the_sequences(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    inbox.drop("s.toml", b"chunk-sise = 300")
    inbox.look(0)
    seen = inbox.look(STABLE)
    assert (seen.registered, [n.kind for n in seen.news]) == ([], ["failing"])
    assert "s.toml: unknown setting 'chunk-sise'; do you mean chunk-size?" in inbox.said()["s.fa"]
    assert (inbox.folder / "s.fa").exists()
    inbox.drop("s.toml", b"chunk-size = 300")
    assert arrive(inbox, 100) == ["s"]
    assert inbox.sample("s").settings.chunk_size == 300


def test_settings_for_all_hold_for_what_arrives_later(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    assert arrive(inbox) == ["s"]
    chunk_sample(inbox.sample("s"))
    inbox.drop("virnucpro.toml", b"chunk-size = 300")
    inbox.drop("t.fa", b">t\nACGA\n")
    assert arrive(inbox, 100) == ["t"]
    (inbox.home / "inbox.sqlite").unlink()  # all is looked at anew: samples stay what they are
    inbox.heard = 0
    assert arrive(inbox, 200) == ["s", "t"]
    assert list_samples(inbox.home) == ["s", "t"]
    assert inbox.sample("s").settings == SETTINGS


def test_own_settings_that_come_later_change_what_is_not_begun_and_else_make_a_variant(inbox: Inbox) -> None:
    inbox.drop("s.fa")
    assert arrive(inbox) == ["s"]
    inbox.drop("s.toml", b"chunk-size = 300")
    assert arrive(inbox, 100) == ["s"]
    assert inbox.sample("s").settings.chunk_size == 300
    chunk_sample(inbox.sample("s"))
    inbox.drop("s.toml", b"chunk-size = 400 # now")
    assert arrive(inbox, 200) == ["s-400"]
    assert inbox.sample("s-400").variant_of == "s"
    assert inbox.sample("s").chunks.exists()
    (inbox.folder / "s.toml").unlink()
    assert arrive(inbox, 300) == []
    # The file is given again, with the settings of the inbox: they take the place of nothing.
    inbox.drop("s.fa", FASTA * 2)
    assert arrive(inbox, 400) == ["s-500"]
    assert (inbox.sample("s").settings.chunk_size, inbox.sample("s").chunks.exists()) == (300, True)


def test_what_was_taken_moves_away_when_it_is_asked_for(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    inbox.drop("s.fa")
    inbox.drop("s.toml", b"cutoff = 0.7")
    for n in (1, 2):
        inbox.drop(f"run/below/m_R{n}.fq", FASTQ.replace(b"ACGT", b"ACGTA"[n - 1 :][:4]))
    assert arrive(inbox) == ["run", "s"]
    inbox.look(50)
    assert (inbox.folder / "s.fa").exists()  # nobody has read it
    for name in ("s", "run"):
        inbox.call(name)
    with locked(inbox.sample("s").lock("driver"), busy=""):
        inbox.look(60)
    assert (inbox.folder / "s.fa").exists()
    assert "a process works on it" in inbox.said()["s.fa"]
    inbox.look(70)
    assert sorted(f.name for f in inbox.folder.iterdir()) == ["virnucpro.toml"]
    done = inbox.home / "done"
    assert inbox.sample("s").inputs[0].path == done / "s.fa"
    assert [f.path for f in inbox.sample("run").inputs] == [
        done / "run" / "below" / f"m_R{n}.fq" for n in (1, 2)
    ]
    assert (done / "s.toml").exists()
    assert [(m.name, m.samples, m.kind) for m in moved_entries(inbox.home)] == [
        (b"run", "run", "taken"),
        (b"s.fa", "s", "taken"),
    ]
    assert noted_entries(inbox.home) == []
    inbox.call("s")
    # Another file of this name is another sample, and does not replace the first one in done/.
    inbox.drop("s.fa", b">other\nACGA\n")
    (name,) = arrive(inbox, 100)
    assert name.startswith("s-")
    inbox.call(name)
    inbox.look(200)
    assert inbox.sample(name).inputs[0].path == done / "2-s.fa"
    assert [m.sample_names for m in moved_entries(inbox.home)] == [["run"], ["s"], [name]]
    assert all(f.path.exists() for n in list_samples(inbox.home) for f in open_sample(inbox.home, n).inputs)


def test_a_move_that_was_killed_half_way_is_completed(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    inbox.drop("s.fa")
    arrive(inbox)
    inbox.call("s")
    (inbox.home / "done").mkdir()
    (inbox.home / "done" / "s.fa").touch()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            inbox.look(50)
    assert not inbox.sample("s").inputs[0].path.exists()
    inbox.look(60)
    assert inbox.sample("s").inputs[0].path == inbox.home / "done" / "2-s.fa"
    assert inbox.sample("s").inputs[0].path.read_bytes() == FASTA
    inbox.call("s")


def test_what_a_run_refuses_is_set_aside_and_its_sample_removed(inbox: Inbox) -> None:
    inbox.drop("s.fa", TWICE)
    arrive(inbox)
    with pytest.raises(Exception, match="line 5"):
        chunk_sample(inbox.sample("s"))
    seen = inbox.look(50)
    assert (seen.removed, [n.kind for n in seen.news]) == (["s"], ["refused"])
    assert (inbox.home / "set_aside" / "s.fa").read_bytes() == TWICE
    reason = (inbox.home / "set_aside" / "s.fa.reason.txt").read_text()
    assert (
        'line 5: the same id as at line 1; make ids unique, or use `duplicates = "rename"` in s.toml'
        in reason
    )
    assert list_samples(inbox.home) == []
    (left,) = moved_entries(inbox.home)
    assert (left.name, left.kind, left.samples) == (b"s.fa", "refused", "")


def test_the_suffix_of_a_settings_file_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "UPPER.fa").write_text(">a\nACGT\n")
    (tmp_path / "UPPER.TOML").write_text("chunk_size = 300\n")
    files = SettingsFiles(tmp_path, ["UPPER.TOML", "UPPER.fa"])
    assert files.given([tmp_path / "UPPER.fa"]) == {"chunk_size": 300}
    assert lonely(["UPPER.TOML"], [b"UPPER.fa"]) == []
    assert lonely(["UPPER.TOML"], [b"other.fa"]) == ["UPPER.TOML"]
