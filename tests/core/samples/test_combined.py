"""Which setting holds if several places give it: the highest one, and what it excludes beneath it is gone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.samples.combined import check_exclusive, layered
from virnucpro_core.samples.settings_file import read_settings_file

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "cutoff": st.sampled_from([0.4, 0.6]),
    "preset": st.sampled_from(["", "relaxed"]),
    "calibration": st.sampled_from(["", "none", "/c.json"]),
    "prior": st.sampled_from([0.1, 0.2]),
    "chunk_size": st.sampled_from([300, 500]),
}
LAYER = st.fixed_dictionaries({}, optional=VALUES)


def fits(layer: dict[str, Any]) -> bool:
    try:
        check_exclusive(layer)
    except UsageError:
        return False
    return True


@given(layers=st.lists(LAYER, min_size=1, max_size=4))
def test_the_highest_layer_holds_and_nothing_contradicts_it(layers: list[dict[str, Any]]) -> None:
    assume(all(map(fits, layers)))
    found = layered(*layers)
    assert fits(found)
    assert found.items() >= layers[-1].items()
    for name, value in found.items():
        assert value == next(layer[name] for layer in reversed(layers) if name in layer)
    for name in {name for layer in layers for name in layer} - found.keys():
        [*_, at] = [k for k, layer in enumerate(layers) if name in layer]
        assert any(not fits({name: layers[at][name]} | layer) for layer in layers[at + 1 :])


def test_what_is_not_given_decides_nothing() -> None:
    assert layered({"cutoff": 0.6}, {"cutoff": None, "prior": None}) == {"cutoff": 0.6}
    assert layered({"preset": "relaxed", "chunk_size": 300}, {"cutoff": 0.6}) == {
        "chunk_size": 300,
        "cutoff": 0.6,
    }
    assert layered({"calibration": "none"}, {"preset": "relaxed"}) == {"preset": "relaxed"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('cutoff = 0.6\npreset = "relaxed"', 'cutoff = 0.6 and preset = "relaxed" cannot be used together'),
        ('calibration = "none"\nprior = 0.1', 'calibration = "none" and prior = 0.1 cannot be used together'),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "virnucpro.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_settings_file(tmp_path / "virnucpro.toml")


def test_settings_that_exclude_each_other_take_nothing_else_away() -> None:
    both = {"cutoff": 0.5, "preset": "relaxed"}
    assert layered({"profile": "demo", "prior": 0.1}, both) == {"profile": "demo", "prior": 0.1, **both}
