"""What the job of each step asks Slurm for: our defaults, then the site's file `slurm.toml`.

The file's keys are the long options of sbatch, so there are no words of our own to learn. Knows nothing of Dagster.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_assets.platform.places import slurm_file
from virnucpro_assets.slurm.jobs import Options
from virnucpro_core.errors import UsageError
from virnucpro_core.samples.products import PRODUCTS

CHECK_SECONDS = 20
TABLES = ("all", "host", "device", "steps")
# Options that this program sets itself, or that would make something else of the job.
OURS = {
    "array",
    "batch",
    "chdir",
    "comment",
    "dependency",
    "error",
    "export",
    "export-file",
    "help",
    "input",
    "job-name",
    "no-requeue",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "test-only",
    "usage",
    "version",
    "wait",
    "wrap",
}


@dataclass(frozen=True, slots=True)
class Requests:
    """The content of a site's `slurm.toml`. Everything is empty if there is no such file.

    setup: shell lines at the start of each job. check_seconds: how often each job is looked at.
    """

    tables: Mapping[str, Options] = field(default_factory=dict)
    steps: Mapping[str, Options] = field(default_factory=dict)
    setup: str = ""
    check_seconds: int = CHECK_SECONDS

    def options(self, step: str, defaults: Options, *, device: bool) -> dict[str, str | bool]:
        """Options of sbatch for a step: the defaults, then [all], then [device] or [host], then the step's own."""
        kind = self.tables.get("device" if device else "host", {})
        return {**defaults, **self.tables.get("all", {}), **kind, **self.steps.get(step, {})}


def site_requests() -> Requests:
    """What this installation's `slurm.toml` says. Raises UsageError."""
    file, required = slurm_file()
    steps = [*PRODUCTS, *(f"{name}_checks" for name in PRODUCTS), "retention", "release_what_is_due"]
    return read_requests(file, steps, required=required)


def read_requests(file: Path, steps: Collection[str], *, required: bool) -> Requests:
    """Read a `slurm.toml`. steps: all steps that exist. required: a missing file is an error.

    Raises UsageError that names the file and the wrong key.
    """
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return Requests()
        raise UsageError(
            "there is no such file", where=file, remedy="correct or unset VIRNUCPRO_SLURM"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        remedy = "correct the file; texts and times stand in quotes"
        raise UsageError(f"cannot be read as TOML: {error}", where=file, remedy=remedy) from error
    known = (*TABLES, "setup", "check_seconds")
    _refuse_unknown(file, "", found, known)
    own = _table(file, "steps", found)
    _refuse_unknown(file, "steps", own, steps)
    setup, seconds = found.get("setup", ""), found.get("check_seconds", CHECK_SECONDS)
    if not isinstance(setup, str):
        raise UsageError("setup is not a text", where=file, remedy='give shell lines: setup = """..."""')
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        raise UsageError(f"check_seconds is {seconds!r}", where=file, remedy="give a whole number, 1 or more")
    tables = {name: _options(file, name, _table(file, name, found)) for name in TABLES[:-1]}
    return Requests(
        tables,
        {name: _options(file, f"steps.{name}", _table(file, name, own)) for name in own},
        setup,
        seconds,
    )


def _refuse_unknown(file: Path, table: str, found: Mapping[str, Any], known: Collection[str]) -> None:
    for name in found:
        if name not in known:
            place = f"[{table}.{name}]" if table else name
            raise UsageError(
                f"{place} is not known", where=file, remedy=f"choose from {', '.join(sorted(known))}"
            )


def _table(file: Path, name: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, Mapping):
        raise UsageError(f"{name} is not a table", where=file, remedy=f"begin it with [{name}]")
    return table


def _options(file: Path, table: str, found: Mapping[str, Any]) -> Options:
    options: dict[str, str | bool] = {}
    for name, value in found.items():
        place = f"{name} in [{table}]"
        if name in OURS:
            raise UsageError(f"{place} is set by virnucpro itself", where=file, remedy="leave it out")
        if not name.replace("-", "").isalnum() or name != name.lower() or name.startswith("-"):
            remedy = "give a long option of sbatch without --, such as partition, gres, time or mem"
            raise UsageError(f"{place} is not an option", where=file, remedy=remedy)
        if isinstance(value, bool):
            options[name] = value
        elif isinstance(value, str | int) and str(value).isprintable():
            options[name] = str(value)
        else:
            remedy = f'put it in quotes, such as {name} = "24:00:00"'
            raise UsageError(f"{place} is {str(value)!r}, not a text or number", where=file, remedy=remedy)
    return options
