"""Settings in TOML: each option of `predict` by its name, checked; everything else is refused in one line."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import InputError
from virnucpro_core.samples.settings import PATHS, SampleSettings
from virnucpro_core.samples.settings_file import read_settings_file

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "chunk_size": st.integers(6, 1_000_000),
    "cutoff": st.floats(0, 1),
    "shard_rows": st.integers(1, 10_000),
    "profile": st.sampled_from(["demo", "esm2-3b", 'with "quotes"']),
    "duplicates": st.sampled_from(["refuse", "rename"]),
    "overlong": st.sampled_from(["truncate", "isolate"]),
    "precision": st.sampled_from(["float32", "float16", "fp8"]),
    "interleaved": st.booleans(),
    "min_length": st.integers(0, 1000),
    "pairs": st.sampled_from(["any", "both"]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "virnucpro.toml"


def _toml(value: Any) -> str:
    text = f"{value:f}" if isinstance(value, float) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return "'" + value + "'" if isinstance(value, str) else text


@given(settings=st.fixed_dictionaries({}, optional=VALUES), dashes=st.booleans())
def test_what_is_written_is_read(
    settings: dict[str, Any], dashes: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("s") / "any.toml"
    lines = [f"{k.replace('_', '-') if dashes else k} = {_toml(v)}" for k, v in settings.items()]
    file.write_text("\n".join(lines))
    found = read_settings_file(file)
    assert found == pytest.approx(settings, abs=1e-6)
    assert SampleSettings(**found)


def test_every_setting_can_be_given_with_its_default(file: Path, tmp_path: Path) -> None:
    """Also those that come later: a setting that the file does not know would be missing here."""
    given = {k: v for k, v in asdict(SampleSettings()).items() if v is not None}
    file.write_text("\n".join(f"{k.replace('_', '-')} = {_toml(v)}" for k, v in given.items()))
    assert read_settings_file(file) == given
    assert set(PATHS) <= {f.name for f in fields(SampleSettings)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chunk-sise = 300", "unknown setting 'chunk-sise'; do you mean chunk-size?"),
        ("nonsense = 1", "unknown setting 'nonsense'; known settings: calibration, chunk-size, classifier"),
        ("gpus = 2", "unknown setting 'gpus'"),
        ("chunk-size = '300'", "chunk-size is '300'; write chunk-size = a whole number"),
        ("chunk-size = true", "chunk-size is True"),
        ("chunk-size = 3", "chunk_size is 3; give 6 to 1,000,000 bases"),
        ("cutoff = 1.5", "cutoff is 1.5; give 0 to 1"),
        ("cutoff = nan", "cutoff is nan; give 0 to 1"),
        ('precision = "half"', 'precision is \'half\'; write precision = "float32" or "float16" or "fp8"'),
        ("chunk-size = 300\nchunk_size = 500", "the setting chunk-size is given twice"),
        ("chunk-size = 300\nchunk-size = 500", "is not TOML: Cannot overwrite a value"),
        (
            "[table]\nchunk-size = 300",
            "[table] is a section, and this file has none; write the settings without it",
        ),
        ("chunk-size: 300", "is not TOML"),
        ('classifier = "nowhere"', "nowhere, which does not exist"),
        ('"\\u001b[31m" = 1', "unknown setting"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("#" * 200_000, "is too large for a file of settings"),
    ],
)
def test_what_cannot_be_a_setting_is_refused_in_one_line(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_settings_file(file)
    line = str(caught.value)
    assert says in line
    assert line.startswith(str(file))
    assert line.isprintable()


def test_other_bytes_than_text_and_a_missing_file_are_refused(file: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_settings_file(file)
    file.mkdir()
    with pytest.raises(InputError, match="not a file; write the settings"):
        read_settings_file(file)
    file.rmdir()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not TOML"):
        read_settings_file(file)
    file.write_bytes(b"\xef\xbb\xbfcutoff = 1\r\n")  # as an editor of Windows saves it
    assert read_settings_file(file) == {"cutoff": 1.0}


def test_a_path_is_relative_to_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    file.write_text('classifier = "ours"')
    assert read_settings_file(file) == {"classifier": str((tmp_path / "ours").resolve())}


def test_a_caller_may_know_more_keys(file: Path) -> None:
    file.write_text("gpus = 2\ncutoff = 0.7")
    assert read_settings_file(file, {"gpus": int}) == {"gpus": 2, "cutoff": 0.7}
    file.write_text("gpu = 2")
    with pytest.raises(InputError, match="do you mean gpus"):
        read_settings_file(file, {"gpus": int})
