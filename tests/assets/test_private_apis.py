"""What this project relies on in private parts of Dagster. A new release of Dagster that changes one fails here.

The SQLAlchemy listener of `quick_event_log` has its test in tests/assets/graph/test_retention.py.
"""

import logging
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alembic.util import CommandError
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage import tags as dagster_tags
from dagster._daemon.auto_run_reexecution.event_log_consumer import (
    DAGSTER_EVENT_TYPES,
    _fetch_persisted_cursors,
    _persist_cursors,
)
from dagster_shared.check import CheckError

from virnucpro_assets.automation.groups import WILL_RETRY
from virnucpro_assets.automation.nightly import PARENT_TAG, PARTITION_TAG, SCHEDULE_TAG
from virnucpro_assets.graph.each import each
from virnucpro_assets.graph.records import RETRY_RUN, materialization
from virnucpro_assets.platform.instance import begin_event_log
from virnucpro_assets.platform.ownership import PACKAGE
from virnucpro_assets.platform.tags import (
    DEFERRED_TAG,
    KEYS_TAG,
    MAX_RETRIES_TAG,
    PRIORITY_TAG,
    RANGE_TAGS,
)

KEYS = dg.StaticPartitionsDefinition(["a", "b"])


def test_the_tags_of_dagster_have_these_names() -> None:
    assert dagster_tags.EXTERNALLY_MANAGED_ASSETS_TAG == DEFERRED_TAG
    assert dagster_tags.MAX_RETRIES_TAG == MAX_RETRIES_TAG
    assert dagster_tags.PRIORITY_TAG == PRIORITY_TAG
    assert dagster_tags.PARENT_RUN_ID_TAG == PARENT_TAG
    assert dagster_tags.PARTITION_NAME_TAG == PARTITION_TAG
    assert dagster_tags.SCHEDULE_NAME_TAG == SCHEDULE_TAG
    assert dagster_tags.WILL_RETRY_TAG == WILL_RETRY
    assert {dagster_tags.RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "true"} == RETRY_RUN
    assert RANGE_TAGS == (
        dagster_tags.ASSET_PARTITION_RANGE_START_TAG,
        dagster_tags.ASSET_PARTITION_RANGE_END_TAG,
    )


def test_the_daemon_begins_to_read_the_event_log_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Used by platform/instance.py: the keys under which the daemon keeps how far it has read."""
    log = logging.getLogger("daemon")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        caplog.clear()  # of what Dagster says of the temporary instance
        for expected in (0, 7):
            begin_event_log(instance)
            assert set(_fetch_persisted_cursors(instance, DAGSTER_EVENT_TYPES, log).values()) == {expected}
            _persist_cursors(instance, dict.fromkeys(DAGSTER_EVENT_TYPES, 7))  # it is not set back
    assert not caplog.records


def test_a_run_coordinator_gets_the_run_and_knows_its_instance() -> None:
    """Used by automation/queue.py: `SubmitRunContext.dagster_run` and `_instance`."""
    assert "dagster_run" in SubmitRunContext._fields
    coordinator = dg.QueuedRunCoordinator()
    with dg.DagsterInstance.ephemeral() as instance:
        coordinator.register_instance(instance)
        assert coordinator._instance is instance


def test_a_step_can_take_the_records_of_its_keys_from_dagster() -> None:
    """Used by graph/each.py: DEFERRED_TAG, set within a step, keeps Dagster from recording what the step returns."""

    @dg.asset(partitions_def=KEYS, backfill_policy=dg.BackfillPolicy.single_run())
    def made(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from each(context, lambda key: dg.MaterializeResult(metadata={"key": key}))

    with dg.DagsterInstance.ephemeral() as instance:
        tags = dict(zip(RANGE_TAGS, ("a", "b"), strict=True)) | {KEYS_TAG: '["a", "b"]'}
        assert dg.materialize([made], instance=instance, tags=tags).success
        found = [r.asset_materialization for r in instance.fetch_materializations(made.key, limit=9).records]
        assert {(m.partition, m.metadata["key"].value) for m in found if m} == {("a", "a"), ("b", "b")}
        assert len(found) == 2


def test_a_record_has_the_tags_that_dagster_gives_it() -> None:
    """Used by graph/records.py: the names of the tags for code version, data version and its origin."""
    ours: list[dg.AssetMaterialization] = []

    @dg.asset(partitions_def=KEYS, code_version="7")
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        result: dg.MaterializeResult[Any] = dg.MaterializeResult(data_version=dg.DataVersion("x"))
        ours.append(materialization(context, "a", result))
        return result

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([made], instance=instance, partition_key="a")
        [record] = instance.fetch_materializations(made.key, limit=9).records
        assert record.asset_materialization is not None
        assert ours[0].tags is not None
        recorded = record.asset_materialization.tags or {}
        assert ours[0].tags.items() <= recorded.items()
        assert set(recorded) - set(ours[0].tags) == {
            name for name in recorded if name.startswith("dagster/input_")
        }


def test_a_pointer_to_code_names_its_module() -> None:
    """Used by platform/ownership.py."""
    assert PACKAGE in ModuleCodePointer(f"{PACKAGE}.definitions", "defs", None).describe()


def test_what_dagster_raises_for_an_instance_that_it_cannot_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used by platform/instance.py: `CheckError` for the configuration, alembic's `CommandError` for a database."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    config = tmp_path / "dagster.yaml"
    config.write_text("run_storage: {module: no_such_module, class: Storage, config: {}}\n")
    with pytest.raises(CheckError, match="no_such_module"):
        dg.DagsterInstance.get()
    config.write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get():
        pass
    with closing(sqlite3.connect(tmp_path / "history" / "runs.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'nothing'")
    with pytest.raises(CommandError, match="nothing"), dg.DagsterInstance.get() as instance:
        instance.upgrade()


def test_sigterm_ends_the_step_of_a_slurm_job_at_once() -> None:
    """Used by slurm/worker.py: `setup_interrupt_handlers` is how Dagster takes SIGTERM, looked up at each call."""
    code = """
import signal, sys
from dagster._utils import interrupts
if sys.argv[1:]:
    interrupts.setup_interrupt_handlers = lambda: None
with interrupts.capture_interrupts():
    signal.raise_signal(signal.SIGTERM)
"""
    codes = [
        subprocess.run([sys.executable, "-c", code, *more], check=False).returncode for more in ([], ["x"])
    ]
    assert codes == [0, -signal.SIGTERM]
