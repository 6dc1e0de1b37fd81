"""The table of settings in docs/operations.md is that of the code, and the parts of a variant's name are explained."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import ROOT
from virnucpro_core.samples.naming import variant_name
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import OF_RESULTS, SampleSettings

PAGE = (ROOT / "docs" / "operations.md").read_text()
# A value of each setting that makes a variant, such that the name has the part that the page shows.
OTHER: dict[str, Any] = {
    "chunk_size": 300,
    "profile": "demo",
    "classifier": "/models/ours",
    "duplicates": "rename",
    "overlong": "isolate",
    "precision": "fp8",
    "shard_rows": 5000,
    "interleaved": True,
    "unmapped_only": True,
    "min_length": 301,
    "frames": "open",
    "min_open": 40,
}


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings", ROOT / "docs" / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_settings_is_that_of_the_code() -> None:
    generator = _generator()
    assert generator.page(PAGE) == PAGE, "run `make settings`"
    with pytest.raises(ValueError, match="lacks the marks"):
        generator.page("no marks")


def test_each_part_of_the_name_of_a_variant_is_explained() -> None:
    settings = SampleSettings(frames="open")
    assert OTHER.keys() == SampleSettings.__dataclass_fields__.keys() - set(OF_RESULTS)
    rows = re.findall(
        r"^\| (`[^|]*) \| ([^|]*) \|$", PAGE.partition("| part |")[2].partition("\n\n")[0], re.MULTILINE
    )
    explained = {part: meaning for parts, meaning in rows for part in re.findall("`([^`]+)`", parts)}
    for setting, value in OTHER.items():
        base = replace(settings, frames="full") if setting == "frames" else settings
        sample = Sample("s", Path("s"), (), base)
        for one, other in (
            (base, replace(base, **{setting: value})),
            (replace(base, **{setting: value}), base),
        ):
            part = variant_name(replace(sample, settings=one), other).removeprefix("s-")
            shown = re.sub(r"\d+", "N", part)
            known = {re.sub(r"\d+", "N", name): meaning for name, meaning in explained.items()} | explained
            is_known = shown in known or (setting == "profile" and one.profile == "demo")
            assert is_known, part
            assert part not in explained or f"--{setting.replace('_', '-')}" in explained[part], part
