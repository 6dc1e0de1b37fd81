"""The instance on PostgreSQL by one variable: a sample goes through it, and SQLite is not touched."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.live_platform import Site
from torture.postgres import DATABASE, postgres_storage
from virnucpro_assets.platform import instance
from virnucpro_core.errors import StoreError, UsageError

SERVER = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
NAME = "kept"
LANE = ("dnabert_embeddings", "esm_embeddings", "merged_features", "predictions")
RUN_LANE = f"""
from virnucpro_assets.running.runs import run_task
from virnucpro_assets.running.tasks import Task
assert not run_task(Task("lane", ("0|" + {NAME!r},), driver={NAME!r})).failure
"""
needs_postgres = pytest.mark.skipif(
    not SERVER or not importlib.util.find_spec("dagster_postgres"),
    reason="needs Debian's postgresql and virnucpro[postgres]",
)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A database of its own on loopback."""
    with postgres_storage(tmp_path / "postgres") as (config, environment):
        port = config.split("port: ")[1].split()[0]
        user, password = environment["VIRNUCPRO_PG_USER"], environment["VIRNUCPRO_PG_PASSWORD"]
        yield f"postgresql+psycopg2://{user}:{password}@127.0.0.1:{port}/{DATABASE}"


@needs_postgres
def test_one_variable_puts_the_records_into_postgresql(tmp_path: Path, url: str, genomes: Path) -> None:
    import sqlalchemy  # noqa: PLC0415

    site = Site(tmp_path / "home", gpus=1, extra={instance.POSTGRES_URL: url})
    site.run(str(ROOT / "tests" / "support" / "live_platform.py"), NAME, str(genomes), "20")
    site.run("-c", RUN_LANE)
    assert url.split("@", maxsplit=1)[0] not in (site.home / "dagster" / "dagster.yaml").read_text()
    assert not (site.home / "dagster" / "history").exists()
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        kinds = connection.execute(
            sqlalchemy.text(
                "select asset_key, count(*) from event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'"
                " group by asset_key"
            )
        ).all()
    engine.dispose()
    made = dict(tuple(row) for row in kinds)
    assert made == {f'["{name}"]': 1 for name in ("chunks", "translations", *LANE)}


@needs_postgres
def test_an_instance_moves_with_the_steps_of_the_runbook(tmp_path: Path, url: str, genomes: Path) -> None:
    """The block of docs/runbook.md and the variable: nothing of the sample is lost, and it is recorded again."""
    import sqlalchemy  # noqa: PLC0415

    program = str(ROOT / "tests" / "support" / "live_platform.py")
    Site(tmp_path / "home", gpus=1).run(program, NAME, str(genomes), "20")
    config = tmp_path / "home" / "dagster" / "dagster.yaml"
    runbook = (ROOT / "docs" / "runbook.md").read_text().split("\n## Moving to PostgreSQL\n")[1]
    block = runbook.split("```yaml\n")[1].split("```")[0]
    assert instance.POSTGRES.read_text().endswith(block)
    config.write_text(config.read_text() + block)
    before = {p: p.read_bytes() for p in (tmp_path / "home" / "samples" / NAME).rglob("*.bin")}
    Site(tmp_path / "home", gpus=1, extra={instance.POSTGRES_URL: url}).run(program, NAME, str(genomes), "20")
    assert before
    assert {p: p.read_bytes() for p in before} == before
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        recorded = connection.execute(sqlalchemy.text("select count(*) from asset_keys")).scalar()
    engine.dispose()
    assert recorded == 2


@needs_postgres
def test_a_database_that_does_not_answer_is_said_in_one_line_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv(instance.POSTGRES_URL, "postgresql+psycopg2://u:secret@127.0.0.1:1/d")
    with pytest.raises(
        StoreError, match="error in the Dagster instance's database: connection to server"
    ) as caught:
        instance.prepare_instance()
    assert "secret" not in str(caught.value)
    assert [p.name for p in (tmp_path / "dagster").iterdir()] == [instance.LOCK]


def test_an_instance_on_sqlite_is_not_taken_for_one_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    instance.prepare_instance()
    monkeypatch.setenv(instance.POSTGRES_URL, "postgresql://u:p@127.0.0.1/d")
    monkeypatch.setattr(instance.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UsageError, match=r"keeps its records in SQLite; append .*postgres\.yaml"):
        instance.prepare_instance()
    monkeypatch.setattr(instance.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'virnucpro\[postgres\]'"):
        instance.prepare_instance()
