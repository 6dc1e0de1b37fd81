"""Samples of equal names lie side by side, and so do the variants of one sample; nothing takes another's place."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import UsageError
from virnucpro_core.samples.naming import (
    Discarded,
    check_chosen,
    enter,
    enter_unread,
    family,
    planned,
    variant_name,
)
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import KEY, Sample, list_samples, open_sample
from virnucpro_core.samples.settings import SampleSettings, differing
from virnucpro_core.sequences.names import group_samples

SETTINGS = SampleSettings(profile="demo")
OTHERS = [
    SETTINGS,
    replace(SETTINGS, chunk_size=300),
    replace(SETTINGS, profile="esm2-650m"),
    replace(SETTINGS, precision="fp8", overlong="isolate"),
    replace(SETTINGS, classifier="/models/of ours/A.b"),
    replace(SETTINGS, classifier="/elsewhere/A.b"),
    replace(SETTINGS, duplicates="rename"),
    replace(SETTINGS, shard_rows=20),
    replace(SETTINGS, frames="open"),
    replace(SETTINGS, frames="open", min_open=40),
]


def write(file: Path, bases: str = "ACGT") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f">a\n{bases}\n")
    return file


def test_equal_names_of_different_folders_lie_side_by_side(tmp_path: Path) -> None:
    home = tmp_path / "home"
    one = enter(home, "contigs", [write(tmp_path / "A" / "contigs.fasta")], SETTINGS)
    for bases in ("ACGTA", "ACGTA"):  # the second time it is known
        other = enter(home, "contigs", [write(tmp_path / "B" / "contigs.fasta", bases)], SETTINGS)
        assert (one.name, other.name) == ("contigs", "B_contigs")
    third = enter(home, "contigs", [write(tmp_path / "x" / "B" / "contigs.fasta", "ACGTAC")], SETTINGS)
    assert third.name == "x_B_contigs"
    assert list_samples(home) == ["B_contigs", "contigs", "x_B_contigs"]


def test_files_keep_their_name_when_they_are_given_together_later(tmp_path: Path) -> None:
    home, files = (
        tmp_path / "home",
        [write(tmp_path / n / "contigs.fa", b) for n, b in (("A", "AC"), ("B", "AG"))],
    )
    assert enter(home, "contigs", files[:1], SETTINGS).name == "contigs"
    groups = group_samples(files)
    assert [group.name for group in groups] == ["A_contigs", "B_contigs"]
    entered = [enter(home, group.name, group.files, SETTINGS).name for group in groups]
    assert entered == ["contigs", "B_contigs"]


def test_changed_bytes_of_the_same_file_are_for_a_person_to_decide(tmp_path: Path) -> None:
    home, file = tmp_path / "home", write(tmp_path / "A" / "s.fa")
    enter(home, "s", [file], SETTINGS)
    write(file, "ACGTACGT")
    with pytest.raises(
        UsageError, match=r"already stands for other sequences.*give --sample OTHER_NAME, or --fresh"
    ):
        enter(home, "s", [file], SETTINGS)
    assert list_samples(home) == ["s"]


def test_a_name_like_an_option_is_not_chosen(tmp_path: Path) -> None:
    for name, said in (
        ("-x", "it begins with '-', as options do; give"),
        ("", "use 1 to 64"),
        ("a b", "use 1 to 64"),
    ):
        with pytest.raises(UsageError, match=said):
            check_chosen(name)
    assert [
        group.name for group in group_samples([write(tmp_path / "-x.fa"), write(tmp_path / "x-.fa")])
    ] == ["_x", "x-"]


def test_a_chosen_name_is_used_or_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    enter(home, "s", [write(tmp_path / "A" / "s.fa")], SETTINGS, chosen=True)
    with pytest.raises(UsageError, match="already stands for other sequences"):
        enter(home, "s", [write(tmp_path / "B" / "s.fa", "AC")], SETTINGS, chosen=True)


@given(
    order=st.lists(st.sampled_from(OTHERS), min_size=1, max_size=12),
    name=st.text("ab-_", min_size=1, max_size=64),
)
def test_settings_lead_to_their_own_variant_whatever_came_before(
    order: list[SampleSettings], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same settings give the same key, other settings another one, and every key is valid and has its settings."""
    home = tmp_path_factory.mktemp("home")
    file = write(home / "s.fa")
    keys: dict[SampleSettings, str] = {}
    for settings in order:
        sample = enter(home, name, [file], settings)
        assert keys.setdefault(settings, sample.name) == sample.name
        assert KEY.fullmatch(sample.name)
        assert sample.base == name
        assert open_sample(home, sample.name).settings == settings
    assert len(set(keys.values())) == len(keys)
    assert {one.name for one in family(home, name)} == set(keys.values())


def test_names_of_variants_say_what_differs() -> None:
    sample = Sample("s", Path("home/samples/s"), (), SETTINGS)
    names = [variant_name(sample, other) for other in OTHERS[1:]]
    assert names[:5] == ["s-300", "s-esm2-650m", "s-isolate-fp8", "s-A_b", "s-A_b"]
    assert names[5:] == ["s-rename", "s-rows20", "s-open", "s-open-aa40"]
    # The least length of open frames says nothing beside stop-free frames only.
    assert not differing(SETTINGS, replace(SETTINGS, min_open=40))
    assert differing(OTHERS[-1], OTHERS[-2]) == ("min_open",)


def test_settings_of_the_results_alone_change_the_sample_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "s.fa")
    enter(tmp_path, "s", [file], SETTINGS)
    assert enter(tmp_path, "s", [file], replace(SETTINGS, cutoff=0.9)).name == "s"
    assert open_sample(tmp_path, "s").settings.cutoff == 0.9
    assert not differing(SETTINGS, replace(SETTINGS, cutoff=0.1))


def test_a_sample_with_the_name_of_a_variant_is_not_touched(tmp_path: Path) -> None:
    file, other = write(tmp_path / "A" / "s.fa"), write(tmp_path / "A" / "s-300.fa", "ACGTA")
    taken = enter(tmp_path, "s-300", [other], SETTINGS)
    enter(tmp_path, "s", [file], SETTINGS)
    variant = enter(tmp_path, "s", [file], OTHERS[1])
    assert (variant.variant_of, variant.name[:6]) == ("s", "s-300-")
    assert open_sample(tmp_path, "s-300") == taken
    assert enter(tmp_path, "s", [file], OTHERS[1]).name == variant.name
    # and the other way: a file with the name that a variant has
    remove_sample(tmp_path, "s-300")
    remove_sample(tmp_path, variant.name)
    assert enter(tmp_path, "s", [file], OTHERS[1]).name == "s-300"
    assert enter(tmp_path, "s-300", [other], SETTINGS).name == "A_s-300"


def test_ten_thousand_samples_make_no_registration_slower(tmp_path: Path) -> None:
    """A registration reads what concerns its own name, not the folder of all samples."""
    read: list[str] = []
    listed = os.scandir
    file = write(tmp_path / "s.fa")
    enter(tmp_path, "s", [file], SETTINGS)
    with mock.patch("os.scandir", lambda place=".": (read.append(str(place)), listed(place))[1]):
        assert enter(tmp_path, "s", [file], OTHERS[1]).name == "s-300"
    assert str(tmp_path / "samples") not in read


def test_variants_are_found_without_their_sample(tmp_path: Path) -> None:
    file = write(tmp_path / "s.fa")
    enter(tmp_path, "s", [file], SETTINGS)
    assert enter(tmp_path, "s", [file], OTHERS[1]).name == "s-300"
    remove_sample(tmp_path, "s")
    assert enter(tmp_path, "s", [file], OTHERS[1]).name == "s-300"
    assert enter(tmp_path, "s", [file], SETTINGS).name == "s"


def test_fresh_says_what_it_deleted_and_deletes_only_that(tmp_path: Path) -> None:
    file, told = write(tmp_path / "s.fa"), list[Discarded]()
    options: dict[str, Any] = {"fresh": True, "on_discard": told.append}
    enter(tmp_path, "s", [file], SETTINGS, **options)
    assert told == []
    variant = enter(tmp_path, "s", [file], OTHERS[1], **options)
    assert told == []
    for one, size in (("s", 3000), ("s-300", 5000)):
        (tmp_path / "samples" / one / "chunks").mkdir()
        (tmp_path / "samples" / one / "chunks" / "x.bin").write_bytes(b"x" * size)

    def deleted(found: Discarded) -> None:
        assert not (variant.folder / "chunks").exists()  # said when it is done
        told.append(found)

    again = enter(tmp_path, "s", [file], OTHERS[1], fresh=True, on_discard=deleted)
    assert (again.name, again.variant_of) == ("s-300", "s")
    assert [(t.sample, t.bytes // 1000) for t in told] == [("s-300", 5)]
    assert not (variant.folder / "chunks").exists()
    assert (tmp_path / "samples" / "s" / "chunks" / "x.bin").exists()


@pytest.mark.parametrize("settings", [SETTINGS, *OTHERS[1:3]])
@pytest.mark.parametrize("removed", [None, "s", "s-300"])
def test_a_variant_holds_the_sequences_of_its_sample_also_after_fresh(
    settings: SampleSettings, removed: str | None, tmp_path: Path
) -> None:
    file, told = write(tmp_path / "s.fa"), list[Discarded]()
    for one in (SETTINGS, OTHERS[1]):
        enter(tmp_path, "s", [file], one)
    if removed:
        remove_sample(tmp_path, removed)
    write(file, "ACGTACGT")
    with pytest.raises(UsageError, match="stands for other sequences"):
        enter(tmp_path, "s", [file], settings)
    plan = planned(tmp_path, "s", [file], settings, fresh=True)
    assert list_samples(tmp_path) == sorted({"s", "s-300"} - {removed})
    new = enter(tmp_path, "s", [file], settings, fresh=True, on_discard=told.append)
    assert (new.name, new.variant_of, list_samples(tmp_path)) == ("s", "", ["s"])
    assert plan.discards is not None
    assert told == [plan.discards]
    for other in OTHERS[:3]:
        assert enter(tmp_path, "s", [file], other).base == "s"
    assert len({one.content for one in family(tmp_path, "s")}) == 1
    assert len(family(tmp_path, "s")) == 3


def test_a_refused_sample_takes_other_settings_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "s.fa")
    sample = enter(tmp_path, "s", [file], SETTINGS)
    sample.rejected.write_text('{"reason": "two records have the id a"}')
    assert enter(tmp_path, "s", [file], replace(SETTINGS, duplicates="rename")).name == "s"


def test_an_unread_sample_takes_settings_until_it_is_begun(tmp_path: Path) -> None:
    file = write(tmp_path / "s.fa")
    assert enter_unread(tmp_path, "s", [file], SETTINGS).settings == SETTINGS
    assert enter_unread(tmp_path, "s", [file], OTHERS[1]).settings == OTHERS[1]
    assert list_samples(tmp_path) == ["s"]
    enter(tmp_path, "s", [file], OTHERS[1])  # begun
    assert enter_unread(tmp_path, "s", [file], SETTINGS).name == "s-500"
    cheap = enter_unread(tmp_path, "s", [file], replace(OTHERS[1], cutoff=0.7))
    assert (cheap.name, cheap.settings.cutoff, cheap.content != "") == ("s", 0.7, True)


def test_many_at_once_get_a_name_each(tmp_path: Path) -> None:
    """A job array over the contigs of many assemblies: real processes, which begin at one moment."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from virnucpro_core.samples.naming import enter\n"
        "from virnucpro_core.samples.settings import SampleSettings\n"
        "home, file, start = map(Path, sys.argv[1:])\n"
        "print('ready', flush=True)\n"
        "while not start.exists(): time.sleep(0.001)\n"
        "print(enter(home, 'contigs', [file], SampleSettings(profile='demo')).name)\n"
    )
    files = [write(tmp_path / f"run{n}" / "contigs.fa", "ACGT" * (n + 1)) for n in range(6)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home"), str(file), str(tmp_path / "start")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for file in files
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    (tmp_path / "start").touch()
    names = [worker.communicate()[0].strip() for worker in workers]
    assert all(name in ("contigs", f"run{n}_contigs") for n, name in enumerate(names))
    assert sorted(names) == list_samples(tmp_path / "home")
    assert names.count("contigs") == 1


def test_a_damaged_sample_is_said_and_not_worked_around(tmp_path: Path) -> None:
    file = write(tmp_path / "A" / "s.fa")
    enter(tmp_path, "s", [file], SETTINGS)
    (tmp_path / "samples" / "s" / "sample.json").write_text("{")
    with pytest.raises(Exception, match="damaged"):
        enter(tmp_path, "s", [file], SETTINGS)
