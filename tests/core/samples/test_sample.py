"""A sample's name is a safe key, its content is its bytes, its settings are checked where they are made."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_core.errors import InputError, StoreError, UsageError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.locks import locked
from virnucpro_core.samples import index
from virnucpro_core.samples.content import with_content
from virnucpro_core.samples.finding import find_samples, stray_files
from virnucpro_core.samples.inputs import files_of
from virnucpro_core.samples.occupancy import shared_lock
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import (
    NameTakenError,
    check_key,
    list_samples,
    open_sample,
    register,
    register_sample,
    register_unread,
    same_content,
)
from virnucpro_core.samples.settings import SampleSettings

SETTINGS = SampleSettings(profile="demo")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "a,b", "x" * 65, "a b", "ä", "a|b", "a\n"])
def test_names_that_would_break_a_path_or_a_key_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a sample name"):
        check_key(name)


def test_round_trip_and_files_in_another_order(tmp_path: Path) -> None:
    files = [tmp_path / "b.fa", tmp_path / "a.fa"]
    for file in files:
        file.write_text(f">{file.name}\nACGT\n")
    made = register(tmp_path, "s", files, SETTINGS)
    assert open_sample(tmp_path, "s") == made
    turned = register(tmp_path, "s", files[::-1], SETTINGS)  # the same sequences, in another order
    assert open_sample(tmp_path, "s") == turned
    assert turned.content == made.content
    assert [f.path.name for f in turned.inputs] == ["a.fa", "b.fa"]
    assert list_samples(tmp_path) == ["s"]


def test_one_name_never_stands_for_two_contents(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    first = register(tmp_path, "s", [file], SETTINGS)
    file.write_text(">a\nACGA\n")
    with pytest.raises(UsageError, match="already stands for other sequences"):
        register(tmp_path, "s", [file], SETTINGS)
    assert open_sample(tmp_path, "s") == first
    assert register(tmp_path, "s", [file], SETTINGS, fresh=True).content != first.content


def test_nothing_is_discarded_under_a_process_that_works_on_it(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    sample = register(tmp_path, "s", [file], SETTINGS)
    shard = sample.product("esm_embeddings") / "00000.h5"
    shard.parent.mkdir()
    shard.touch()
    lock = sample.lock("esm_embeddings-1")
    with locked(lock, busy=""), pytest.raises(StoreError, match=r"a process works on it.*process"):
        register(tmp_path, "s", [file], SETTINGS, fresh=True)
    assert shard.exists()
    register(tmp_path, "s", [file], SETTINGS, fresh=True)
    assert not shard.exists()
    assert lock.exists()


def test_other_settings_wait_until_nobody_works_on_the_sample(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    sample = register(tmp_path, "s", [file], SETTINGS)
    other = replace(SETTINGS, cutoff=0.9)
    for lock in ("driver", "esm_embeddings-1", "consensus"):
        with (
            locked(sample.lock(lock), busy=""),
            pytest.raises(
                StoreError, match=rf"cannot take other settings.*\(process {os.getpid()} on .+\); wait"
            ),
        ):
            register(tmp_path, "s", [file], other)
        assert open_sample(tmp_path, "s") == sample
    with shared_lock(sample.folder), pytest.raises(StoreError, match="cannot take other settings"):
        register(tmp_path, "s", [file], other)
    with locked(sample.lock("driver"), busy=""):
        assert register(tmp_path, "s", [file], SETTINGS) == sample  # nothing changes, nobody is disturbed
    assert register(tmp_path, "s", [file], other).settings == other


def test_a_sample_is_removed_whole_also_after_half_a_removal(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    sample = register(tmp_path, "s", [file], SETTINGS)
    (sample.folder / "results").mkdir()
    (sample.folder / "sample.json").unlink()
    remove_sample(tmp_path, "s")
    assert not sample.folder.exists()
    remove_sample(tmp_path, "s")
    with pytest.raises(UsageError):
        remove_sample(tmp_path, "../samples")


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        register(tmp_path, "s", [tmp_path / "absent.fa"], SETTINGS)
    with pytest.raises(InputError, match="not a regular file"):
        register(tmp_path, "s", [tmp_path], SETTINGS)
    with pytest.raises(UsageError, match="is not known"):
        open_sample(tmp_path, "s")


def test_a_damaged_description_is_an_error_and_not_a_new_sample(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    sample = register(tmp_path, "s", [file], SETTINGS)
    (sample.folder / "sample.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        open_sample(tmp_path, "s")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_size", 2),
        ("cutoff", 1.5),
        ("region_min_length", -1),
        ("region_min_support", -1),
        ("shard_rows", 10_001),
        ("duplicates", "merge"),
        ("precision", "int8"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*; give "):
        SampleSettings(**{name: value})  # type: ignore[arg-type]


def test_samples_of_the_same_content_are_found_without_reading_the_others(tmp_path: Path) -> None:
    file, other = tmp_path / "a.fa", tmp_path / "b.fa"
    file.write_text(">a\nACGT\n")
    other.write_text(">b\nACGT\n")
    sample = register(tmp_path, "a", [file], SampleSettings())
    register(tmp_path, "again", [file], SampleSettings())
    register(tmp_path, "b", [other], SampleSettings())
    (tmp_path / "samples" / "b" / "sample.json").write_text("damaged")
    assert same_content(tmp_path, sample.content) == ["a", "again"]
    assert same_content(tmp_path, "0" * 64) == []
    shutil.rmtree(sample.folder)
    assert same_content(tmp_path, sample.content) == ["again"]
    shutil.rmtree(tmp_path / "contents")  # as before there was an index
    assert same_content(tmp_path, sample.content) == ["again"]


def test_a_folder_stands_for_the_sequence_files_in_it(tmp_path: Path) -> None:
    for name in ("b.fa", "a.fastq.gz", "notes.txt", ".hidden.fa"):
        (tmp_path / name).touch()
    assert files_of([tmp_path]) == [tmp_path / "a.fastq.gz", tmp_path / "b.fa"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no FASTA or FASTQ file"):
        files_of([tmp_path / "empty"])


def test_the_subfolders_of_a_run_folder_are_taken_and_results_and_homes_are_not(tmp_path: Path) -> None:
    kept = [
        "u_S0_R1_001.fq",
        "Proj X/p1_S1_R1_001.fq",
        "Proj X/p2_S2_R1_001.fq",
        "Proj Y/deep/p1_S3_R1_001.fq",
    ]
    others = [".git/a.fa", "out/run.json", "out/regions.fasta", "half/contigs.tsv", "half/viral_R1.fastq.gz"]
    for name in (*kept, *others, "home/names.lock", "home/inbox/x.fa", "Reports/a.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("@r\nACGT\n+\nIIII\n")
    (tmp_path / "Proj X" / "loop").symlink_to(tmp_path)
    assert files_of([tmp_path]) == [tmp_path / name for name in kept]
    assert {one.name for one in find_samples([tmp_path])} == {"u", "Proj_X_p1", "p2", "deep_p1"}
    said = list(stray_files([tmp_path]))
    assert said == [
        f"{tmp_path}: 3 of 4 sequence files are in subfolders",
        f"{tmp_path}: not sequence files, ignored: a.html",
    ]


def test_two_registrations_of_one_new_name_are_one_and_the_other_is_told(tmp_path: Path) -> None:
    """With real processes, which all begin at one moment."""
    files = []
    for number in range(6):
        file = tmp_path / f"{number}.fa"
        file.write_text(f">r{number}\nACGTTGCA\n")
        files.append(file)
    start = tmp_path / "start"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from virnucpro_core.errors import VirnucproError\n"
        "from virnucpro_core.samples.sample import register\n"
        "from virnucpro_core.samples.settings import SampleSettings\n"
        "home, file, start = map(Path, sys.argv[1:])\n"
        "print('ready', flush=True)\n"
        "while not start.exists(): time.sleep(0.001)\n"
        "try: print(register(home, 's', [file], SampleSettings(profile='demo')).content)\n"
        "except VirnucproError as error: print(error)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "home")]
    for again in range(3):
        start.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        workers = [
            subprocess.Popen([*words, str(file), str(start)], stdout=subprocess.PIPE, text=True)
            for file in files
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        start.touch()
        said = [worker.communicate()[0].strip() for worker in workers]
        winner = open_sample(tmp_path / "home", "s").content
        assert said.count(winner) == 1, (again, said)
        assert sum("already stands for other sequences" in line for line in said) == 5, said


def test_a_sample_of_the_format_before_is_read_and_registered_again(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "data" / "sample_v2", tmp_path, dirs_exist_ok=True)
    old = open_sample(tmp_path, "plant")
    assert (old.settings.chunk_size, old.settings.cutoff, old.earlier) == (300, 0.7, "")
    assert [str(f.path) for f in old.inputs] == ["/data/plant_R1.fq", "/data/plant_R2.fq"]
    assert same_content(tmp_path, old.content) == ["plant"]
    files = [tmp_path / "plant_R1.fq", tmp_path / "plant_R2.fq"]
    for file, bases in zip(files, ("ACGT", "TTTT"), strict=True):
        file.write_text(f"@a\n{bases}\n+\nIIII\n")
    new = register(tmp_path, "plant", files, old.settings)
    assert new.content == old.content
    assert open_sample(tmp_path, "plant").inputs[0].mtime_ns == files[0].stat().st_mtime_ns


def test_a_later_format_is_refused_and_not_taken_for_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    known = register(tmp_path, "s", [file], SETTINGS).folder / "sample.json"
    facts = json.loads(known.read_text()) | {"format": 99}
    del facts["seal"]
    known.write_text(json.dumps(facts | {"seal": sha256_json(facts)}))
    with pytest.raises(
        StoreError, match=r"written by a newer version .*its format is 99; this version reads"
    ):
        open_sample(tmp_path, "s")


def test_files_are_read_when_somebody_needs_their_content(tmp_path: Path) -> None:
    file, same = tmp_path / "a.fa", tmp_path / "same.fa"
    for one in (file, same):
        one.write_text(">a\nACGT\n")
    unread = register_unread(tmp_path, "s", [file], SETTINGS)
    assert (unread.content, same_content(tmp_path, "")) == ("", [])
    assert register_unread(tmp_path, "s", [file], replace(SETTINGS, cutoff=0.9)).settings == SETTINGS
    with pytest.raises(NameTakenError):
        register_unread(tmp_path, "s", [same], SETTINGS)
    read = with_content(unread)
    assert read == open_sample(tmp_path, "s")
    assert read.content == register(tmp_path, "other", [same], SETTINGS).content
    assert same_content(tmp_path, read.content) == ["other", "s"]
    # A person gives the same bytes under another path while the sample is unread: they are compared.
    register_unread(tmp_path, "t", [file], SETTINGS)
    assert register(tmp_path, "t", [same], SETTINGS).content == read.content
    register_unread(tmp_path, "u", [file], SETTINGS)
    file.write_text(">a\nACGTA\n")
    with pytest.raises(UsageError, match="already stands"):
        register(tmp_path, "u", [same], SETTINGS)
    with pytest.raises(InputError, match="changed since the sample was registered"):
        with_content(open_sample(tmp_path, "u"))


def test_two_equal_files_of_an_unread_sample_are_refused_when_they_are_read(tmp_path: Path) -> None:
    files = [tmp_path / "a.fa", tmp_path / "b.fa"]
    for one in files:
        one.write_text(">a\nACGT\n")
    with pytest.raises(InputError, match="two input files hold the same bytes"):
        with_content(register_unread(tmp_path, "s", files, SETTINGS))


def indexed(home: Path) -> set[str]:
    """All names in the indexes."""
    return {f.name for place in ("contents", "variants") for f in (home / place).rglob("*") if f.is_file()}


def test_a_sample_that_is_gone_is_in_no_index_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.fa"
    file.write_text(">a\nACGT\n")
    sample = register(tmp_path, "a", [file], SETTINGS)
    register_sample(replace(sample, name="a-1", folder=tmp_path / "samples" / "a-1", variant_of="a"))
    assert indexed(tmp_path) == {"a", "a-1"}
    remove_sample(tmp_path, "a-1")
    assert indexed(tmp_path) == {"a"}
    earlier = sample.content
    file.write_text(">a\nACGTA\n")
    changed = register(tmp_path, "a", [file], SETTINGS, fresh=True)
    assert (same_content(tmp_path, earlier), same_content(tmp_path, changed.content)) == ([], ["a"])
    assert len(list((tmp_path / "contents").rglob("a"))) == 1
    file.write_text(">a\nACGTAC\n")
    replaced = with_content(register_unread(tmp_path, "a", [file], SETTINGS, replaces=True))
    assert (same_content(tmp_path, changed.content), same_content(tmp_path, replaced.content)) == ([], ["a"])
    assert len(list((tmp_path / "contents").rglob("a"))) == 1
    index.note(tmp_path, replaced.content, "left_by_an_older_version")
    remove_sample(tmp_path, "a")
    assert indexed(tmp_path) == {"left_by_an_older_version"}
    assert same_content(tmp_path, replaced.content) == []
    assert caplog.text == ""
