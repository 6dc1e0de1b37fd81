"""A setting that is written as text has the value that it has in a settings file, or is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.samples.test_settings_file import VALUES
from virnucpro_core.errors import UsageError
from virnucpro_core.samples.settings_text import setting_from_text


@given(setting=st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name])))
def test_what_is_written_is_read(setting: tuple[str, Any]) -> None:
    name, value = setting
    assert setting_from_text(name, str(value), Path()) == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("chunk_size", "3e2", "X is '3e2'; give a whole number"),
        ("chunk_size", "5", "X is 5; give 6 to 1,000,000 bases"),
        ("cutoff", "high", "X is 'high'; give a number"),
        ("cutoff", "nan", "X is nan; give 0 to 1"),
        ("prior", "1", "X is 1.0; give a share between 0 and 1"),
        ("interleaved", "maybe", "X is 'maybe'; give yes or no"),
        ("precision", "half", "X is 'half'; give float32, float16 or fp8"),
        ("pairs", "one", "X is 'one'; give any or both"),
        ("classifier", "nowhere", "X: no such folder or file: "),
        ("classifier", "file", "file is not a folder; give a folder"),
        ("calibration", "folder", "folder is not a file; give a file"),
        ("calibration", "https://host/c.json", "X: https://host/c.json is an address, not a path"),
        ("classifier", "a\0b", "X: a path cannot hold the character NUL"),
    ],
)
def test_what_is_no_value_is_refused_by_the_name_that_its_author_knows(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        setting_from_text(name, text, tmp_path, "X")
    assert says in str(caught.value)
    assert name not in str(caught.value).replace(str(tmp_path), "")


def test_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert setting_from_text("classifier", "ours", tmp_path) == str(tmp_path / "ours")
    assert setting_from_text("classifier", "~/ours", Path("/elsewhere")) == str(tmp_path / "ours")
    assert setting_from_text("calibration", "none", tmp_path) == "none"
