"""Settings of samples: the configuration file beneath environment variables beneath options, for every setting."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from virnucpro_assets.cli.main import app
from virnucpro_assets.cli.predict import predict
from virnucpro_assets.platform.environment import VARIABLES, export, settings, variable_of
from virnucpro_assets.platform.places import unknown_variables
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_assets.running.found import typed_settings
from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.samples.settings import SampleSettings

# Three values of each setting: in the file, in the variable, and as an option. None of them is the default.
VALUES: dict[str, tuple[Any, Any, Any]] = {
    "profile": ("esm2-8m", "esm2-35m", "demo"),
    "chunk_size": (100, 200, 300),
    "classifier": ("a", "b", "c"),
    "duplicates": ("rename", "refuse", "rename"),
    "overlong": ("isolate", "truncate", "isolate"),
    "precision": ("fp8", "float16", "float32"),
    "cutoff": (0.1, 0.2, 0.3),
    "shard_rows": (10, 20, 30),
    "interleaved": (True, False, True),
    "unmapped_only": (False, True, False),
    "min_length": (10, 20, 30),
    "pairs": ("both", "any", "both"),
    "region_min_length": (10, 20, 30),
    "region_min_support": (2, 3, 4),
    "calibration": ("a.json", "b.json", "none"),
    "prior": (0.1, 0.2, 0.3),
    "preset": ("relaxed", "conservative", "relaxed"),
    "frames": ("open", "full", "open"),
    "min_open": (10, 20, 40),
}
EXCLUSIVE = {"cutoff": "preset", "preset": "calibration"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any setting, and what the paths of VALUES name."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.json").touch()
    return tmp_path


def written(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def held(name: str, **given: Any) -> Any:
    value = getattr(platform_from_environment().sample_settings(**given), name)
    return Path(value).name if name in ("classifier", "calibration") else value


@pytest.mark.parametrize("name", VALUES)
def test_file_beneath_variable_beneath_option(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_file, in_variable, as_option = VALUES[name]
    (home / "virnucpro.toml").write_text(f"{name.replace('_', '-')} = {written(in_file)}")
    assert held(name) == in_file
    monkeypatch.setenv(variable_of(name), str(in_variable))
    assert held(name) == in_variable
    assert held(name, **{name: as_option}) == as_option
    if name in EXCLUSIVE:
        return
    others = {n: v[0] for n, v in VALUES.items() if n not in (name, "preset", "calibration")}
    lines = [f"{n.replace('_', '-')} = {written(v)}" for n, v in others.items()]
    (home / "virnucpro.toml").write_text("\n".join(lines))
    assert held(name) == in_variable  # whatever else the file holds


def test_every_option_that_the_file_has_is_a_variable() -> None:
    assert VALUES.keys() == asdict(SampleSettings()).keys()
    keys = {variable.key: variable.name for variable in VARIABLES if variable.key}
    options = {opt for param in predict.params if isinstance(param, click.Option) for opt in param.opts}
    both = {option for option in options if option.removeprefix("--") in keys}
    assert {keys[o.removeprefix("--")] for o in both} == {
        f"VIRNUCPRO_{o.removeprefix('--').replace('-', '_').upper()}" for o in both
    }
    assert len(both) == len(VALUES) - 1 + len(
        ("--gpus", "--device")
    )  # --preset has two options of its values


def test_every_option_can_take_back_what_a_variable_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("interleaved", "unmapped_only"):
        monkeypatch.setenv(variable_of(name), "yes")
        context = predict.make_context("predict", [f"--no-{name.replace('_', '-')}", "-o", "out"])
        assert held(name, **typed_settings(context.params)) is False
    monkeypatch.setenv("VIRNUCPRO_PRESET", "relaxed")
    found = platform_from_environment().sample_settings(cutoff=0.6)
    assert (found.cutoff, found.preset) == (0.6, "")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"VIRNUCPRO_MIN_LENGTH": "long"}, "VIRNUCPRO_MIN_LENGTH is 'long'; give a whole number"),
        ({"VIRNUCPRO_PRECISION": "half"}, "VIRNUCPRO_PRECISION is 'half'; give float32, float16 or fp8"),
        ({"VIRNUCPRO_PROFILE": "demoo"}, "VIRNUCPRO_PROFILE is 'demoo'; give one of esm2-3b, "),
        ({"VIRNUCPRO_CLASSIFIER": "nowhere"}, "VIRNUCPRO_CLASSIFIER: no such folder or file: "),
        (
            {"VIRNUCPRO_CUTOFF": "0.6", "VIRNUCPRO_PRESET": "relaxed"},
            "VIRNUCPRO_CUTOFF=0.6 and VIRNUCPRO_PRESET=relaxed cannot be used together; give one of them",
        ),
    ],
)
def test_a_wrong_value_names_the_variable(
    given: dict[str, str], says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        settings()
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"MIN_OPEN": "400", "FRAMES": "open"}, "give a smaller --min-open; VIRNUCPRO_MIN_OPEN is 400"),
        ({"CHUNK_SIZE": "400"}, "the classifier to use; VIRNUCPRO_CHUNK_SIZE is 400"),
        ({"PRECISION": "fp8"}, "compute on a GPU; VIRNUCPRO_PRECISION is fp8"),
        ({"PRESET": "relaxed"}, "leave the option out; VIRNUCPRO_PRESET is relaxed"),
        ({"CLASSIFIER": "a"}, "model.safetensors; VIRNUCPRO_CLASSIFIER is "),
    ],
)
def test_a_value_that_does_not_fit_the_others_names_the_variable(
    given: dict[str, str], says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "s.fa").write_text(">s\nACGT\n")
    words = ["predict", str(home / "s.fa"), "--out", str(home / "out"), "--profile", "demo", "--check"]
    (home / "virnucpro.toml").write_text("region-min-length = 400\n")
    for name, value in given.items():
        monkeypatch.setenv(f"VIRNUCPRO_{name}", value)
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, VirnucproError)
    assert refused.exit_code == 2
    assert says in str(refused)
    assert "\n" not in str(refused)
    for name in given:
        monkeypatch.delenv(f"VIRNUCPRO_{name}")
    keys = [
        f"{name.lower().replace('_', '-')} = {value if value.isdecimal() else repr(value)}"
        for name, value in given.items()
    ]
    (home / "virnucpro.toml").write_text("\n".join(keys))
    in_file = str(CliRunner().invoke(app, words).exception)
    assert in_file.endswith(f" in {home / 'virnucpro.toml'}")


def test_other_processes_find_a_path_that_was_relative(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The web server changes its folder."""
    monkeypatch.setenv("VIRNUCPRO_CLASSIFIER", "a")
    monkeypatch.setenv("VIRNUCPRO_CALIBRATION", "none")
    export(platform_from_environment())
    assert os.environ["VIRNUCPRO_CLASSIFIER"] == str(home / "a")
    assert os.environ["VIRNUCPRO_CALIBRATION"] == "none"


def test_a_variable_that_is_none_is_said_once_by_every_command(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "VIRNUCPRO_CHUNKSIZE", "VIRNUCPRO_TIME_ZONE", "VIRNUCPRO_CONSERVATIVE", "VIRNUCPRO_QQQ",
        "VIRNUCPRO_PG_USER", "VIRNUCPRO_WEB_SERVICE_HOST", "VIRNUCPRO_WEB_PORT_80_TCP_ADDR",
    ):  # fmt: skip
        monkeypatch.setenv(name, "1")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("username: {env: VIRNUCPRO_PG_USER}")
    changes = "is set, but there is no variable of this name: it changes nothing"
    lines = [
        f"VIRNUCPRO_CHUNKSIZE {changes}; do you mean VIRNUCPRO_CHUNK_SIZE?",
        f"VIRNUCPRO_CONSERVATIVE {changes}; do you mean VIRNUCPRO_PRESET=conservative?",
        f"VIRNUCPRO_QQQ {changes}; `virnucpro config` lists all that there are",
        f"VIRNUCPRO_TIME_ZONE {changes}; do you mean VIRNUCPRO_TIMEZONE?",
    ]
    assert unknown_variables() == lines
    done = CliRunner().invoke(app, ["samples"])
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [f"warning: {line}" for line in lines]
