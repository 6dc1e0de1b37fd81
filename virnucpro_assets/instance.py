"""The Dagster instance of this VIRNUCPRO_HOME: made on first use, configured by the `dagster.yaml` beside this file."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster_shared.check import CheckError
from sqlalchemy.exc import SQLAlchemyError

from virnucpro_assets.resources import dagster_home, export, platform_from_environment
from virnucpro_core.durable import publish, publish_bytes
from virnucpro_core.errors import StoreError, UsageError

CONFIG = Path(__file__).with_name("dagster.yaml")


def prepare_instance() -> Path:
    """DAGSTER_HOME with a configuration in it; an existing one is left as the site made it."""
    home = dagster_home()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        publish(home / "dagster.yaml", lambda temporary: _copy(CONFIG, temporary))
        # The web UI's first-visit dialog asks for a newsletter; it would cover the asset graph.
        publish_bytes(home / ".nux" / "nux.yaml", b"seen: 1\n")
    export(platform_from_environment())
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance, made ready if it is new. Close it, or use it as a context manager.

    Raises UsageError for a `dagster.yaml` that Dagster cannot use, such as one that asks for what is not installed.
    """
    home = prepare_instance()
    try:
        return dg.DagsterInstance.get()
    except (CheckError, dg.DagsterInvalidConfigError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            reason,
            where=home / "dagster.yaml",
            remedy="mend it; PostgreSQL needs `pip install 'virnucpro[postgres]'`",
        ) from error


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """What the instance's database refuses inside the block becomes a StoreError of one line."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreError(
            f"the Dagster instance's database refuses: {reason}",
            where=dagster_home(),
            remedy=(
                "use PostgreSQL if this recurs (docs/operations.md)"
                if "locked" in reason
                else "mend the disk"
            )
            + ", then run the same command again; nothing finished is lost",
        ) from error


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
