"""One table of variables: what is read, what other machines are given, what the docs say."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT
from virnucpro_assets.platform import zones
from virnucpro_assets.platform.environment import (
    PASSED_ON,
    VARIABLES,
    dagster_home,
    environment_of,
    home_folder,
    models_folder,
    settings,
    time_zone,
    url_prefix,
)
from virnucpro_assets.platform.resource import Platform, platform_from_environment
from virnucpro_core.errors import UsageError
from virnucpro_core.pipeline.retention import RELEASES

NAMES = [variable.name for variable in VARIABLES]
ODD = {
    "VIRNUCPRO_HOME": "/odd/home",
    "VIRNUCPRO_MODELS": "/odd/models",
    "VIRNUCPRO_GPUS": "5",
    "VIRNUCPRO_DEVICE": "cuda",
    "VIRNUCPRO_PROFILE": "demo",
    "VIRNUCPRO_CHUNK_SIZE": "123",
    "VIRNUCPRO_ATTENTION": "reference",
    "VIRNUCPRO_TOKEN_BUDGET": "777",
    "VIRNUCPRO_WORKERS": "0",
    "VIRNUCPRO_EXECUTOR": "ray",
    "VIRNUCPRO_LEASES": "/odd/leases",
    "VIRNUCPRO_INBOX_STABLE_SECONDS": "12345678.5",
    "VIRNUCPRO_KEEP": "scores",
    "VIRNUCPRO_KEEP_DAYS": "0.5",
    "VIRNUCPRO_TIMEZONE": "Asia/Tokyo",
    "VIRNUCPRO_URL_PREFIX": "/lab/virnucpro",
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, "TZ"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_table_names_every_variable_that_the_code_names() -> None:
    sources = [*(ROOT / "virnucpro_assets").rglob("*.py"), *(ROOT / "virnucpro_assets").rglob("*.yaml")]
    found = {name for file in sources for name in re.findall(r"\bVIRNUCPRO_[A-Z_]*[A-Z]\b", file.read_text())}
    of_samples = {variable.name for variable in VARIABLES if variable.of_samples}
    assert found <= {name for name in NAMES if name.startswith("VIRNUCPRO_")} <= found | of_samples
    assert len(set(NAMES)) == len(NAMES)


def test_every_setting_of_the_platform_is_read_from_one_variable() -> None:
    assert sorted(variable.setting for variable in PASSED_ON) == sorted(Platform.model_fields)
    assert set(ODD) == {variable.name for variable in PASSED_ON}


def test_another_process_with_these_variables_has_the_same_platform(clean: pytest.MonkeyPatch) -> None:
    usual = platform_from_environment()
    for name, value in ODD.items():
        clean.setenv(name, value)
    odd = platform_from_environment()
    assert all(getattr(odd, v.setting) != getattr(usual, v.setting) for v in PASSED_ON)
    for platform in (usual, odd):
        given = environment_of(platform)
        assert set(given) == set(ODD)
        for name, value in given.items():
            clean.setenv(name, value)
        assert platform_from_environment() == platform
        assert environment_of(platform_from_environment()) == given


def test_the_launcher_of_ray_passes_on_the_same_variables() -> None:
    launcher = yaml.safe_load((ROOT / "deploy" / "ray" / "run_launcher.yaml").read_text())
    given = launcher["run_launcher"]["config"]["ray"]["env_vars"]
    assert [name for name in given if name.startswith("VIRNUCPRO_")] == [v.name for v in PASSED_ON]


def test_a_secret_is_passed_on_to_nobody() -> None:
    assert not any("POSTGRES" in name for name in environment_of(Platform(home="/nowhere")))


def test_policies_are_those_of_core() -> None:
    [keep] = [variable for variable in VARIABLES if variable.setting == "keep"]
    assert re.findall("`([a-z]+)`", keep.meaning) == list(RELEASES)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VIRNUCPRO_GPUS", "two", "give a whole number"),
        ("VIRNUCPRO_GPUS", "-1", "give a whole number, 0 or more"),
        ("VIRNUCPRO_WORKERS", "-2", "give a whole number, -1 or more"),
        ("VIRNUCPRO_CHUNK_SIZE", "0", "give 6 to 1,000,000 bases"),
        ("VIRNUCPRO_DEVICE", "gpu", "give one of cuda, cpu"),
        ("VIRNUCPRO_EXECUTOR", "pbs", "give one of in_process, slurm, ray, kubernetes"),
        ("VIRNUCPRO_KEEP", "none", "give one of all, scores, results"),
        ("VIRNUCPRO_KEEP_DAYS", "nan", "give a number, 0 or more"),
        ("VIRNUCPRO_KEEP_DAYS", "-1", "give a number, 0 or more"),
        ("VIRNUCPRO_INBOX_STABLE_SECONDS", "soon", "give a number, 0 or more"),
        ("VIRNUCPRO_TIMEZONE", "Mars/Olympus", "give a name such as Europe/Berlin"),
        ("VIRNUCPRO_TIMEZONE", "../../etc/passwd", "give a name such as Europe/Berlin"),
        ("VIRNUCPRO_URL_PREFIX", "lab", "give a path such as /virnucpro"),
        ("VIRNUCPRO_URL_PREFIX", "//evil.example", "give a path such as /virnucpro"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    clean: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    clean.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} is .*{words}"):
        settings()


def test_the_time_zone_is_this_machines(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setattr(zones, "LOCAL_TIME", tmp_path / "none")
    assert time_zone() == "UTC"
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    clean.setattr(zones, "LOCAL_TIME", tmp_path / "localtime")
    assert time_zone() == "Europe/Berlin"
    clean.setenv("TZ", ":America/New_York")
    assert time_zone() == "America/New_York"
    clean.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # a rule has no name
    assert time_zone() == "Europe/Berlin"
    clean.setenv("VIRNUCPRO_TIMEZONE", "Asia/Tokyo")
    assert time_zone() == "Asia/Tokyo"


def test_a_relative_folder_means_the_same_in_every_process(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.chdir(tmp_path)
    clean.setenv("VIRNUCPRO_LEASES", "leases")
    assert json.loads(json.dumps(settings()))["leases"] == str(tmp_path / "leases")


def test_a_user_without_a_home_directory_needs_none(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container that is started with any user id: no HOME, and no entry in the list of users."""

    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    clean.delenv("HOME", raising=False)
    clean.setattr("pwd.getpwuid", nobody)
    with pytest.raises(UsageError, match=r"HOME is not set.*set VIRNUCPRO_HOME, or give --home"):
        home_folder()
    clean.setenv("VIRNUCPRO_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    assert models_folder() == tmp_path / "models"
    assert dagster_home() == tmp_path / "dagster"


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("keep-days", "-1", settings),
        ("profile", '"demoo"', settings),
        ("time-zone", '"Mars"', time_zone),
        ("url-prefix", '"a b"', url_prefix),
    ],
)
def test_a_wrong_value_is_blamed_on_the_file_that_holds_it(
    key: str, value: str, read: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    monkeypatch.delenv("VIRNUCPRO_PROFILE")
    (tmp_path / "virnucpro.toml").write_text(f"{key} = {value}\n")
    with pytest.raises(UsageError, match=rf"virnucpro\.toml: {key} is "):
        read()


def test_a_relative_dagster_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "rel")
    with pytest.raises(UsageError, match="DAGSTER_HOME is 'rel'; give an absolute path"):
        dagster_home()
