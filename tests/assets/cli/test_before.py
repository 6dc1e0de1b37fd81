"""What `predict` says before the work: which samples get which settings, if they differ."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_assets.cli.before import SHOWN_GROUPS, plan_lines, planned_lines
from virnucpro_assets.platform.resource import Platform, platform_from_environment
from virnucpro_assets.running.request import Request, Wanted
from virnucpro_core.samples.naming import planned
from virnucpro_core.samples.settings import SampleSettings

SETTINGS = SampleSettings(profile="demo", chunk_size=300)


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path / "home"))
    return platform_from_environment().asked(gpus=2)


def said(platform: Platform, *settings: SampleSettings, verbose: bool = False) -> list[str]:
    wanted = [Wanted(f"s{n}", (), one, Path("out")) for n, one in enumerate(settings)]
    return list(plan_lines(Request(platform, tuple(wanted), {}), Path("out"), verbose=verbose))


def test_equal_settings_take_one_line(platform: Platform) -> None:
    assert said(platform) == []
    assert said(platform, SETTINGS, SETTINGS) == [
        "2 samples (0 files, 0 B): profile demo, chunks of 300, 2 lanes on the CPU in float32; results in out"
    ]
    [line] = said(platform, replace(SETTINGS, min_length=200, cutoff=0.7, frames="open", pairs="both"))
    assert "chunks of 300, open frames of 30 or more amino acids, 2 lanes" in line
    assert "in float32, cutoff 0.7, min length 200, pairs both; results" in line


def test_settings_that_differ_are_said_for_groups_and_with_verbose_for_each(platform: Platform) -> None:
    own = replace(SETTINGS, chunk_size=500, classifier="/models/ours", interleaved=True)
    settings = [SETTINGS] * 24 + [own] * 3
    assert said(platform, *settings) == [
        "27 samples (0 files, 0 B): profile demo, 2 lanes on the CPU in float32; results in out",
        "  24 samples (s0, s1, s2 and 21 more): chunks of 300, the profile's classifier, not interleaved",
        "  3 samples (s24, s25, s26): chunks of 500, classifier models/ours, interleaved",
    ]
    [_, *each] = said(platform, *settings, verbose=True)
    assert len(each) == 27
    assert each[-1] == "  s26: chunks of 500, classifier models/ours, interleaved"
    many = [replace(SETTINGS, cutoff=n / 100) for n in range(1, 40)]
    assert said(platform, *many)[SHOWN_GROUPS + 1 :] == [
        "  34 samples with 34 other combinations of settings: --verbose lists them"
    ]


@pytest.mark.parametrize("name", SampleSettings.__dataclass_fields__)
def test_no_setting_differs_in_silence(name: str, platform: Platform) -> None:
    other = {
        "profile": "esm2-8m", "chunk_size": 500, "classifier": "/m", "duplicates": "rename", "overlong": "isolate",
        "precision": "fp8", "cutoff": 0.1, "shard_rows": 9, "interleaved": True, "unmapped_only": True,
        "min_length": 9, "pairs": "both", "region_min_length": 9, "region_min_support": 9, "calibration": "none",
        "prior": 0.1, "preset": "relaxed", "frames": "open", "min_open": 9,
    }  # fmt: skip
    base = replace(SETTINGS, frames="open") if name == "min_open" else SETTINGS
    lines = said(platform, base, replace(base, **{name: other[name]}))
    assert len(lines) == 3
    assert lines[1] != lines[2]


def test_json_has_all_settings_of_each_sample(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    wanted = Wanted("a", (tmp_path / "a.fa",), SETTINGS, tmp_path / "out")
    plans = {"a": planned(platform.folder, "a", wanted.files, SETTINGS)}
    [line] = planned_lines(Request(platform, (wanted,), {}), plans, as_json=True)
    assert SampleSettings(**json.loads(line)["settings"]) == SETTINGS
