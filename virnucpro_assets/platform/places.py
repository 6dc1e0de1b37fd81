"""Where this process keeps its files if a command says so, and which variables it hands to Slurm jobs."""

import os
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.environment import dagster_home, environment_of, home_folder


def use_home(folder: Path) -> None:
    """From now on VIRNUCPRO_HOME is `folder`, in this process and its children, and DAGSTER_HOME lies below it."""
    os.environ["VIRNUCPRO_HOME"] = str(folder.expanduser().resolve())
    os.environ.pop("DAGSTER_HOME", None)


def use_scratch(folder: Path) -> None:
    """From now on DAGSTER_HOME lies below `folder`, in this process and its children."""
    os.environ["DAGSTER_HOME"] = str(folder.expanduser().resolve() / "dagster")


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
