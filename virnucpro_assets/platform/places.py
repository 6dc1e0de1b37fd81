"""Where this process keeps its files if a command says so, and which variables it hands to Slurm jobs."""

import difflib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from virnucpro_assets.platform.environment import (
    VARIABLES,
    configured,
    dagster_home,
    environment_of,
    given_settings,
    home_folder,
    models_folder,
)
from virnucpro_assets.platform.variable import Variable
from virnucpro_core.errors import UsageError, VirnucproError, printable
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.settings_file import NAME

# Settings of samples that must fit the models, the device or each other. A profile is named in every such error.
_TO_FIT = ("chunk_size", "classifier", "precision", "calibration", "prior", "preset", "min_open")
_OURS = "VIRNUCPRO_"
# What Kubernetes tells every pod of a service named virnucpro-...
_OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_[A-Z0-9_]+)?$")


def use_home(folder: Path) -> None:
    """From now on VIRNUCPRO_HOME is `folder`, in this process and its children, and DAGSTER_HOME lies below it."""
    os.environ["VIRNUCPRO_HOME"] = str(folder.expanduser().resolve())
    os.environ.pop("DAGSTER_HOME", None)


def use_scratch(folder: Path) -> None:
    """From now on DAGSTER_HOME lies below `folder`, in this process and its children."""
    os.environ["DAGSTER_HOME"] = str(folder.expanduser().resolve() / "dagster")


def check_configuration() -> None:
    """Raises InputError or UsageError for a wrong key or value in the configuration file, if there is one.

    Prints a warning for each variable that is named like ours and is none.
    """
    try:
        home = home_folder()
    except UsageError:  # then there is no file; commands that need the home folder say so
        return
    for line in unknown_variables():
        sys.stderr.write(f"warning: {line}\n")
    given = configured(home)
    for variable in VARIABLES:
        if variable.setting in given:
            variable.read()


def unknown_variables() -> list[str]:
    """A line for each variable that is named like ours and that nothing reads, such as a misspelled one, sorted.

    Not those that the site's `dagster.yaml` names, and not those that Kubernetes sets for a service of our name.
    """
    ours = {variable.name for variable in VARIABLES}
    values = [(variable.name, word) for variable in VARIABLES for word in get_args(variable.kind)]
    meant = {word.upper(): f"{name}={word}" for name, word in values if isinstance(word, str) and word}
    meant |= {name.removeprefix(_OURS): name for name in ours if name.startswith(_OURS)}
    try:
        site = (dagster_home() / "dagster.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, UsageError):
        site = ""
    lines = []
    for name in sorted(set(os.environ) - ours):
        if not name.startswith(_OURS) or _OF_A_SERVICE.search(name) or name in site:
            continue
        near = difflib.get_close_matches(name.removeprefix(_OURS), meant, n=1)
        remedy = f"do you mean {meant[near[0]]}?" if near else "`virnucpro config` lists all that there are"
        lines.append(
            f"{printable(name)} is set, but there is no variable of this name: it changes nothing; {remedy}"
        )
    return lines


def origin(variable: Variable) -> str:
    """From where its setting comes: the variable's name, the path of the configuration file, or "default"."""
    if os.environ.get(variable.name):
        return variable.name
    given = given_settings(home_folder()) if variable.of_samples else configured(home_folder())
    return str(home_folder() / NAME) if variable.setting in given else "default"


@contextmanager
def origins_named(settings: SampleSettings) -> Iterator[None]:
    """An error about these settings also says which variable, or the file, gave those of them that it mentions."""
    try:
        yield
    except VirnucproError as error:
        given, text = given_settings(home_folder()), str(error)
        for variable in VARIABLES:
            name, value = variable.setting, given.get(variable.setting)
            if name not in _TO_FIT or value is None or value != getattr(settings, name):
                continue
            if re.search(rf"(?<![\w.])({name}|{re.escape(str(value))})(?!\w)", text):
                whence = origin(variable)
                is_variable = whence == variable.name
                error.add(f"{whence} is {value}" if is_variable else f"{variable.key} is {value} in {whence}")
        raise


def check_outside_home(path: Path, *, whole: bool = False, models: bool = False) -> None:
    """Raises UsageError for an --out in what the program keeps for itself (`check_outside`)."""
    from virnucpro_core.samples.home import check_outside

    try:
        also = [dagster_home()] if models else [dagster_home(), models_folder()]
    except UsageError:  # there is no home folder
        return
    check_outside(path, home_folder(), also=also, whole=whole, models=models)


def slurm_file() -> tuple[Path, bool]:
    """The site's file about Slurm jobs, and whether VIRNUCPRO_SLURM names it, so that it must exist."""
    named = os.environ.get("VIRNUCPRO_SLURM", "")
    return (Path(named).expanduser().resolve() if named else home_folder() / "slurm.toml"), bool(named)


def job_environment(platform: Any) -> dict[str, str]:
    """All variables for a Slurm job that is submitted here: this process's own, and the platform's settings.

    Variables of a Slurm job that this process may itself run in are left out, and so are the GPUs that it sees.
    """
    outer = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM", "SBATCH_", "SRUN_", "CUDA_VISIBLE_DEVICES"))
    }
    return outer | environment_of(platform) | {"DAGSTER_HOME": str(dagster_home()), "PYTHONSAFEPATH": "1"}
