"""`virnucpro inbox`: the latest outcome of every entry, in words and as JSON."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.inbox import FASTA, STABLE, Inbox
from virnucpro_assets.cli.main import app
from virnucpro_core.pipeline.steps import chunk_sample
from virnucpro_core.samples.inbox_moves import DONE

# What is said of the tiny records here.
SHORT = (
    "records of about 8 bases in chunks of 500: short records score less reliably; chunk-size 300 fits better, "
    "min-length N leaves short ones uncalled"
)


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    return Inbox(tmp_path)


def said(*words: str) -> list[str]:
    done = CliRunner().invoke(app, ["inbox", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output.splitlines()


def test_every_entry_has_its_latest_outcome(inbox: Inbox) -> None:
    assert said() == [f"0 entries in {inbox.folder}"]
    inbox.drop("taken.fa")
    inbox.drop("registered.fa", b">r\nACGA\n")
    inbox.drop("protein.fa", b">p\nMKLFEILQ\n")
    inbox.drop("twice.fa", b">a\nACGT\n>a\nACGA\n")
    inbox.drop("wrong.fa", b">w\nACGG\n")
    inbox.drop("wrong.toml", b"cut-off = 1")
    inbox.drop("lonely.toml", b"cutoff = 1.0")
    inbox.look(0)
    inbox.look(STABLE)
    chunk_sample(inbox.sample("taken"))
    with pytest.raises(Exception, match="twice"):
        chunk_sample(inbox.sample("twice"))
    inbox.look(STABLE + 1)
    inbox.drop("late.fa.part")
    inbox.drop("odd\n\x1b[31m.fa")
    inbox.drop("pair_R1.fq", b"@a\nACGT\n+\nIIII\n")
    inbox.look(STABLE + 2)
    inbox.drop("new.fa")
    lines = said()
    found = {line.split("  ")[0].strip(): line.split("  ", 1)[1].strip() for line in lines[:-1]}
    assert found.keys() == {
        "late.fa.part", "lonely.toml", "new.fa", "odd\\n\\x1b[31m.fa", "pair_R1.fq", "protein.fa", "registered.fa",
        "taken.fa", "twice.fa", "wrong.fa",
    }  # fmt: skip
    assert found["taken.fa"] == "sample taken: chunked (" + SHORT + ")"
    assert found["registered.fa"] == "sample registered: registered (" + SHORT.replace("8", "4") + ")"
    assert found["late.fa.part"] == "still arriving: its name says that it is not complete"
    assert found["new.fa"].startswith("not seen yet")
    assert found["pair_R1.fq"].startswith("still arriving")
    assert "do you mean cutoff?" in found["wrong.fa"]
    assert found["lonely.toml"].startswith("a settings file for which there is no entry")
    assert "looks like protein" in found["protein.fa"]
    assert found["protein.fa"].endswith(f"moved to {inbox.home / 'set_aside' / 'protein.fa'}")
    assert found["twice.fa"].startswith("refused: ")
    assert lines[-1].startswith("8 entries in ")
    assert lines[-1].endswith("; 2 moved away")
    rows = {row["entry"]: row for row in map(json.loads, said("--json"))}
    assert rows.keys() == found.keys()
    assert rows["taken.fa"]["outcome"] == "taken"
    assert (rows["taken.fa"]["sample"], rows["taken.fa"]["state"]) == ("taken", "chunked")
    assert rows["twice.fa"]["moved_to"].endswith("set_aside/twice.fa")


def test_what_was_moved_away_is_listed_with_its_sample(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    for number in range(25):
        inbox.drop(f"s{number:02}.fa", FASTA.replace(b">a", b">%d" % number))
    inbox.look(0)
    for name in inbox.names(STABLE):
        inbox.call(name)
    inbox.look(STABLE + 1)
    lines = said()
    assert len(lines) == 21
    assert lines[-1] == f"0 entries in {inbox.folder}; 25 moved away, 5 of them not shown (--all)"
    every = said("--all")
    assert len(every) == 26
    assert every[0] == f"s00.fa  sample s00: called ({SHORT}); moved to {inbox.home / DONE / 's00.fa'}"


def test_a_run_is_one_line_for_people_and_one_per_sample_for_programs(inbox: Inbox) -> None:
    inbox.drop("virnucpro.toml", b"move-taken = true")
    for name in ("a_S1", "b_S2", "c_S3"):
        inbox.drop(f"run/{name}_L001_R1_001.fastq", f"@{name}\nACGT\n+\nIIII\n".encode())
    inbox.look(0)
    names = inbox.names(STABLE)
    inbox.call("a")
    lines = said()
    assert lines[0].startswith("run  3 samples: 1 called, 2 registered (samples a, b, c; ")
    assert lines[1].startswith("1 entry in ")
    rows = [json.loads(line) for line in said("--json")]
    assert [(row["entry"], row["sample"], row["state"]) for row in rows] == [
        ("run", "a", "called"),
        ("run", "b", "registered"),
        ("run", "c", "registered"),
    ]
    for name in names[1:]:
        inbox.call(name)
    inbox.look(STABLE + 1)
    inbox.drop("other.fa")
    inbox.look(STABLE + 2)
    inbox.look(2 * STABLE + 2)
    out = str(inbox.home.with_name("pages"))
    done = CliRunner().invoke(app, ["summary", "--entry", "run", "--out", out], catch_exceptions=False)
    assert done.output.splitlines()[-1] == "3 samples: 0 called, 3 without results"
    done = CliRunner().invoke(app, ["summary", "--entry", "rum", "--out", out])
    assert "no run folder or sample sheet 'rum' is known; known are run" in str(done.exception)
    (inbox.folder / "other.fa").unlink()
    inbox.look(100)
    assert said()[0].startswith("run  3 samples: 3 called")
    assert said()[0].endswith(f"moved to {inbox.home / DONE / 'run'}")
    assert said()[1] == f"0 entries in {inbox.folder}; 1 moved away"
