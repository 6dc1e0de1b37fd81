"""Where this process keeps its files if a command says so, and which variables it hands to Slurm jobs."""

import os
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.environment import (
    VARIABLES,
    configured,
    dagster_home,
    environment_of,
    home_folder,
    models_folder,
)
from virnucpro_core.errors import UsageError


def use_home(folder: Path) -> None:
    """From now on VIRNUCPRO_HOME is `folder`, in this process and its children, and DAGSTER_HOME lies below it."""
    os.environ["VIRNUCPRO_HOME"] = str(folder.expanduser().resolve())
    os.environ.pop("DAGSTER_HOME", None)


def use_scratch(folder: Path) -> None:
    """From now on DAGSTER_HOME lies below `folder`, in this process and its children."""
    os.environ["DAGSTER_HOME"] = str(folder.expanduser().resolve() / "dagster")


def check_configuration() -> None:
    """Raises InputError or UsageError for a wrong key or value in the configuration file, if there is one."""
    try:
        home = home_folder()
    except UsageError:  # then there is no file; commands that need the home folder say so
        return
    given = configured(home)
    for variable in VARIABLES:
        if variable.setting in given:
            variable.read()


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
