"""Results go to the user's folder whole, and never over what is not this sample's."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scored import Scored, scored_sample, sequence
from virnucpro_core.errors import UsageError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.publish import publish_json
from virnucpro_core.results.batch import write_batch
from virnucpro_core.results.delivery import (
    LOCK,
    UNFINISHED,
    Target,
    check_out,
    check_shared_out,
    deliver,
    deliver_to,
)
from virnucpro_core.results.finished import read_results
from virnucpro_core.results.folder import OPTIONAL_FILES, REPORT, RESULT_FILES, RUN
from virnucpro_core.results.multiqc import MULTIQC_FILES
from virnucpro_core.samples.home import OWN
from virnucpro_core.samples.inputs import content_digest, digest_inputs
from virnucpro_core.samples.naming import enter
from virnucpro_core.samples.settings import SampleSettings, shown_settings

NAME = "a_sample"  # what `Scored.write` calls it


@pytest.fixture
def sample(tmp_path: Path) -> Scored:
    return scored_sample(tmp_path, f">one\n{sequence(300, 1)}\n")


def results_of(sample: Scored, folder: Path) -> list[Path]:
    """Write the sample's results, which say that they are of the file that comes back."""
    sample.write(folder)
    reads = folder.parent / "reads.fa"
    text = (folder / RUN).read_text()
    content = content_digest(digest_inputs([reads]))
    (folder / RUN).write_text(text.replace('"digests": {', f'"digests": {{"sample": "{content}", '))
    return [reads]


def test_a_results_folder_holds_what_the_table_names(sample: Scored, tmp_path: Path) -> None:
    sample.write(tmp_path / "results")
    assert {file.name for file in (tmp_path / "results").iterdir()} == {*RESULT_FILES} - {*OPTIONAL_FILES}


def test_results_are_delivered_whole_and_again_over_themselves(sample: Scored, tmp_path: Path) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "below" / "out"
    for _ in range(2):
        check_out(out, NAME, inputs, home=out.parent)
        deliver(tmp_path / "results", out)
        assert {f.name: f.read_bytes() for f in out.iterdir()} == {
            f.name: f.read_bytes() for f in (tmp_path / "results").iterdir()
        }
        (out / "my notes").touch()
        check_out(out, NAME, inputs, home=out.parent)
        (out / "my notes").unlink()


def test_a_delivery_that_was_stopped_is_ended_by_the_same_command(sample: Scored, tmp_path: Path) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "out"
    deliver(tmp_path / "results", out)
    (out / RUN).rename(tmp_path / RUN)
    with pytest.raises(UsageError, match="not a result of this sample"):
        check_out(out, NAME, inputs, home=out.parent)
    publish_json(out / UNFINISHED, {"sample": NAME, "content": content_digest(digest_inputs(inputs))})
    check_out(out, NAME, inputs, home=out.parent)
    deliver(tmp_path / "results", out)
    assert not (out / UNFINISHED).exists()


def test_others_results_and_files_are_not_replaced_unless_it_is_said(sample: Scored, tmp_path: Path) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "out"
    deliver(tmp_path / "results", out)
    with pytest.raises(
        UsageError, match="of sample 'a_sample', this is sample 'another'; give another --out, or --force"
    ):
        check_out(out, "another", inputs, home=out.parent, fresh=True)
    inputs[0].write_text(">two\nACGT\n")
    with pytest.raises(UsageError, match="of other sequences under the name 'a_sample'"):
        check_out(out, NAME, inputs, home=out.parent)
    check_out(out, NAME, inputs, home=out.parent, fresh=True)
    check_out(out, "another", inputs, home=out.parent, force=True)
    for name in RESULT_FILES:
        own = tmp_path / f"own-{name}"
        own.mkdir()
        (own / name).write_text("my table")
        with pytest.raises(UsageError, match=f"holds {name}, which is not a result of this sample"):
            check_out(own, NAME, inputs, home=out.parent, fresh=True)


def test_what_others_wrote_is_not_mixed_with_results(sample: Scored, tmp_path: Path) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "out"
    out.mkdir()
    (out / ".DS_Store").touch()
    check_out(out, NAME, inputs, home=tmp_path)
    for name in ("notes.txt", "reads.fa", "<b>&\n=\t", "-x"):
        (out / name).touch()
        with pytest.raises(
            UsageError, match=r"out: holds .*, which VirNucPro did not write; give another --out, or --force"
        ):
            check_out(out, NAME, inputs, home=tmp_path)
        check_out(out, NAME, inputs, home=tmp_path, force=True)
        (out / name).unlink()
    (out / "below").mkdir()
    with pytest.raises(UsageError, match="holds below/, which VirNucPro did not write"):
        check_out(out, NAME, inputs, home=tmp_path, fresh=True)


def test_results_of_another_variant_are_not_replaced(sample: Scored, tmp_path: Path) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "out"
    home, ours = tmp_path / "home", SampleSettings(profile="demo", chunk_size=300)
    enter(home, NAME, inputs, ours)
    facts = json.loads((tmp_path / "results" / RUN).read_text())
    publish_json(tmp_path / "results" / RUN, facts | {"settings": shown_settings(ours)})
    deliver(tmp_path / "results", out)
    for other in (
        replace(ours, chunk_size=500),
        replace(ours, precision="float16"),
        replace(ours, min_length=9),
    ):
        said = rf"holds the results of sample '{NAME}' \(300 demo float32\), and these will be '{NAME}-"
        with pytest.raises(UsageError, match=said):
            check_out(out, NAME, inputs, home=home, settings=other, fresh=True)
        check_out(out, NAME, inputs, home=home, settings=other, force=True)
    check_out(out, NAME, inputs, home=home, settings=replace(ours, cutoff=0.9))
    # A delivery that was interrupted says it as well.
    (out / RUN).unlink()
    publish_json(
        out / UNFINISHED,
        {"sample": NAME, "content": facts["digests"]["sample"], "settings": shown_settings(ours)},
    )
    with pytest.raises(UsageError, match="and these will be"):
        check_out(out, NAME, inputs, home=home, settings=replace(ours, chunk_size=500))
    check_out(out, NAME, inputs, home=home, settings=ours)


def test_several_samples_are_not_mixed_with_one_or_with_what_others_wrote(
    sample: Scored, tmp_path: Path
) -> None:
    inputs, out = results_of(sample, tmp_path / "results"), tmp_path / "out"
    deliver(tmp_path / "results", out / "one")
    write_batch(out, [])
    (out / "two").mkdir()  # interrupted before its first file
    check_shared_out(out, ["three"])
    with pytest.raises(UsageError, match="holds the results of several samples; give another --out"):
        check_out(out, NAME, inputs, home=tmp_path)
    (out / "two" / "mine").touch()
    check_shared_out(out, ["two", "three"])  # `check_out` says it, of this sample alone
    with pytest.raises(UsageError, match="holds two/, which VirNucPro did not write"):
        check_shared_out(out, ["three"])
    check_shared_out(out, ["three"], force=True)
    with pytest.raises(
        UsageError, match="holds the results of sample 'a_sample' itself; pages across samples need"
    ):
        check_shared_out(out / "one", ["three"])


def test_a_folder_that_cannot_be_is_said_before_the_work(sample: Scored, tmp_path: Path) -> None:
    inputs = results_of(sample, tmp_path / "results")
    for bad in (inputs[0], inputs[0] / "below", Path("/proc/out")):
        with pytest.raises(UsageError, match="--out"):
            check_out(bad, NAME, inputs, home=tmp_path, force=True)
    check_out(tmp_path / "new" / "below", NAME, inputs, home=tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [".", "new", *OWN])
def test_the_homes_own_folders_are_no_place_for_results(name: str, sample: Scored, tmp_path: Path) -> None:
    inputs, home = results_of(sample, tmp_path / "results"), tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home / name)
    for out in (
        home / name,
        home / name / "x",
        home / "y" / ".." / name,
        tmp_path / "link",
        tmp_path / "link" / "x",
    ):
        if name == "new" or (name == "." and out.name == "x"):
            check_out(out, NAME, inputs, home=home, force=True)
            continue
        with pytest.raises(UsageError, match=r"the home folder itself|which the program keeps for itself"):
            check_out(out, NAME, inputs, home=home, force=True)


def test_results_are_not_delivered_onto_themselves(sample: Scored, tmp_path: Path) -> None:
    results_of(sample, tmp_path / "results")
    before = {f.name: f.read_bytes() for f in (tmp_path / "results").iterdir()}
    (tmp_path / "link").symlink_to(tmp_path / "results")
    for out in (tmp_path / "results", tmp_path / "link"):
        with pytest.raises(UsageError, match="where the home folder keeps these results"):
            deliver(tmp_path / "results", out)
    assert {f.name: f.read_bytes() for f in (tmp_path / "results").iterdir()} == before


def test_what_came_into_the_folder_during_the_work_is_not_replaced(sample: Scored, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    ours = SampleSettings(profile="demo", chunk_size=300)
    inputs = results_of(sample, tmp_path / "results")
    entered = enter(home, NAME, inputs, ours)
    sample.write(entered.results)
    facts = json.loads((tmp_path / "results" / RUN).read_text()) | {"settings": shown_settings(ours)}
    publish_json(entered.results / RUN, facts)
    before = check_out(out, NAME, inputs, home=home, settings=ours)
    assert before is None
    target = Target(out, NAME, earlier=before)
    deliver_to(target, entered)
    deliver_to(target, entered)  # its own results are replaced
    assert not (out / LOCK).exists()
    for change in (
        {"sample": "another"},
        {"digests": facts["digests"] | {"sample": "0" * 64}},
        {"settings": shown_settings(replace(ours, chunk_size=500))},
    ):
        publish_json(out / RUN, facts | change)
        kept = (out / RUN).read_bytes()
        with pytest.raises(UsageError, match="by now: another command has written them during this one"):
            deliver_to(target, entered)
        assert (out / RUN).read_bytes() == kept
    with pytest.raises(UsageError, match="pages across samples need another folder"):
        deliver_to(Target(out / "below", NAME, shared=True), entered)
    assert sorted(f.name for f in out.iterdir() if f.name.startswith(".") or f.is_dir()) == []
    replaced = check_out(out, NAME, inputs, home=home, settings=ours, force=True)
    deliver_to(replace(target, earlier=replaced), entered)  # it was there before, and may be replaced
    assert json.loads((out / RUN).read_text())["sample"] == NAME
    (out / RUN).unlink()
    with pytest.raises(UsageError, match="which is not a result of this sample"):
        deliver_to(target, entered)
    deliver_to(replace(target, force=True), entered)


def test_report_and_files_for_multiqc_have_the_name_that_a_person_knows(
    sample: Scored, tmp_path: Path
) -> None:
    results_of(sample, tmp_path / "results")
    deliver(tmp_path / "results", tmp_path / "same", NAME)
    deliver(tmp_path / "results", tmp_path / "out", "pat1")
    facts = json.loads((tmp_path / "out" / RUN).read_text())
    assert (facts["sample"], facts["name"]) == (NAME, "pat1")
    for file in (tmp_path / "results").iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
        if file.name in MULTIQC_FILES:
            assert list(json.loads((tmp_path / "out" / file.name).read_text())["data"]) == ["pat1"]
        elif file.name == REPORT:
            page, own = file.read_text(), (tmp_path / "out" / REPORT).read_text()
            assert "<title>pat1 · VirNucPro</title>" in own
            assert "<h1><bdi>pat1</bdi></h1>" in own
            # All else is the same.
            assert own.replace("pat1", NAME) == page
        elif file.name != RUN:
            assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
        if file.name != RUN:
            assert facts["files"][file.name]["sha256"] == sha256_file(tmp_path / "out" / file.name)
    written = [*(tmp_path / "out").iterdir()]
    assert [file.name for file in written if NAME in file.read_text(errors="ignore")] == [RUN]
    if "settings" in facts:
        assert read_results(tmp_path / "out")["name"] == "pat1"


LIMITED = """
import resource, sys
from pathlib import Path
from virnucpro_core.files.publish import publish_json
from virnucpro_core.results.delivery import deliver
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
deliver(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_delivery_needs_no_memory_for_its_largest_table(sample: Scored, tmp_path: Path) -> None:
    results_of(sample, tmp_path / "results")
    large, size = tmp_path / "results" / RESULT_FILES[0], 1 << 30
    with large.open("r+b") as stream:
        stream.truncate(size)
    words = [
        sys.executable,
        "-c",
        LIMITED,
        str(3 * size // 4),
        str(tmp_path / "results"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / large.name).stat().st_size == size
