"""Cleaning by the graph and by the command line: what goes is seen in Dagster, and the checks know it."""

import json
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.storage.event_log import SqlEventLogStorage
from sqlalchemy import create_engine

from tests.assets.conftest import NAME, Finished, run
from virnucpro_assets.cli.samples import samples
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.checks import (
    PrecisionAudits,
    Recorded,
    lane_findings,
    manifest_of,
    sample_findings,
)
from virnucpro_assets.graph.partitions import lane_key
from virnucpro_assets.graph.retention import clean_up, nightly_clean_up
from virnucpro_assets.platform.instance import open_instance, quick_event_log
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running.predict import Watch, predict
from virnucpro_core.errors import UsageError, VirnucproError
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.audit import audit_results
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import register

SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def keeping(platform: Platform, keep: str, days: float = 0.0) -> Platform:
    return Platform(**platform.model_dump() | {"keep": keep, "keep_days": days})


def materialized(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(dg.AssetKey("retention"), limit=10).records
    return [r.asset_materialization for r in records if r.asset_materialization]


def clean_all(finished: Finished, keep: str, days: float = 0.0) -> dg.ExecuteInProcessResult:
    platform = keeping(finished.platform, keep, days)
    return defs.resolve_job_def("clean_up").execute_in_process(
        instance=finished.instance, resources={"platform": platform}, run_config=SILENT
    )


def checked(finished: Finished, asset: str, rank: int) -> dict[str, bool]:
    """The outcome of the asset's checks for one lane."""
    platform = finished.platform
    key, recorded = lane_key(NAME, rank), Recorded(finished.instance, platform, asset)
    findings = lane_findings(recorded, key, PrecisionAudits(recorded, [key], platform.compute))
    return {finding.name: finding.passed for finding in findings}


def test_one_sample_is_cleaned_from_the_web_ui_and_its_checks_still_pass(finished: Finished) -> None:
    done = defs.resolve_job_def("clean_up_sample").execute_in_process(
        partition_key=NAME,
        instance=finished.instance,
        resources={"platform": keeping(finished.platform, "results")},
        run_config=SILENT,
    )
    assert done.success
    (event,) = materialized(finished.instance)
    assert event.partition == NAME
    assert event.metadata["kept"].value == "results"
    assert not list(finished.sample.folder.rglob("*.h5"))
    for asset in (DNABERT, ESM, MERGED, PREDICTIONS):
        for rank in (0, 1):
            outcome = checked(finished, asset, rank)
            assert len(outcome) >= 4
            assert all(outcome.values()), (asset, outcome)
    for asset in ("chunks", "translations"):
        assert [f.passed for f in sample_findings(finished.sample, asset)] == [True, True]
    assert audit_results(finished.sample).passed


def test_materialize_all_deletes_nothing() -> None:
    assert not defs.resolve_asset_graph().get(dg.AssetKey("retention")).is_materializable
    assert defs.resolve_asset_graph().get(dg.AssetKey("consensus")).is_materializable


def test_every_night_cleans_what_is_due_and_leaves_what_is_not(finished: Finished) -> None:
    folder = finished.platform.folder / "samples"
    (folder / "broken").mkdir()
    (folder / "broken" / "sample.json").write_text("{")
    clean_all(finished, "scores", days=1.0)
    assert materialized(finished.instance) == []
    with locked(finished.sample.lock("consensus"), busy=""):
        assert clean_all(finished, "scores").success
    assert materialized(finished.instance) == []
    assert clean_all(finished, "scores").success
    assert clean_all(finished, "scores").success
    (event,) = materialized(finished.instance)
    products = event.metadata["products"].value
    assert set(products) == {DNABERT, ESM, MERGED}  # type: ignore[call-overload]
    assert list(finished.sample.product(PREDICTIONS).glob("*.h5"))


@pytest.mark.parametrize(("keep", "kind"), [("all", dg.SkipReason), ("scores", dg.RunRequest)])
def test_the_night_runs_only_where_a_policy_asks(finished: Finished, keep: str, kind: type) -> None:
    context = dg.build_schedule_context(
        instance=finished.instance, resources={"platform": keeping(finished.platform, keep)}
    )
    assert isinstance(nightly_clean_up(context), kind)
    assert clean_up.name == nightly_clean_up.job_name


def test_a_released_lane_is_computed_again_when_it_is_asked_for(finished: Finished) -> None:
    before = manifest_of(finished.platform.lane(NAME, 0), ESM)
    clean_all(finished, "scores")
    run("lane", lane_key(NAME, 0), finished.instance, finished.platform)
    assert not list(finished.sample.product(ESM).glob("00000.released"))
    assert list(finished.sample.product(ESM).glob("00001.released"))
    after = manifest_of(finished.platform.lane(NAME, 0), ESM)
    assert {k: e.sha256 for k, e in after.items()} == {k: e.sha256 for k, e in before.items()}
    assert all(checked(finished, ESM, 0).values())
    assert all(checked(finished, ESM, 1).values())


@pytest.fixture
def site(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """The finished sample, in this process's environment, with an instance of its own."""
    monkeypatch.setenv("VIRNUCPRO_HOME", finished.platform.home)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return finished


def typed(*words: str) -> str:
    done = CliRunner().invoke(samples, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_finished_and_cleaned_sample_is_not_predicted_again(site: Finished) -> None:
    assert "would be deleted" in typed("clean", NAME, "--keep", "results", "--dry-run")
    assert list(site.sample.product(ESM).glob("*.h5"))
    assert "deleted (merged_features" in typed("clean", NAME, "--keep", "results")
    assert "nothing to delete" in typed("clean", NAME, "--keep", "results")
    assert "released" in typed()
    told: list[str] = []
    done: list[str] = []
    watch = Watch(lambda _, what: told.append(what), lambda *_: None, lambda one: done.append(one.name))
    assert predict([site.sample], site.platform, watch) == {}
    assert done == [NAME]
    assert len(told) == 1
    assert "nothing to compute" in told[0]
    assert not list(site.sample.folder.rglob("*.h5"))


def test_what_is_cleaned_by_hand_is_seen_in_dagster(site: Finished, tmp_path: Path) -> None:
    open_instance().dispose()
    typed("clean", "--keep", "scores")
    with open_instance() as instance:
        assert [e.partition for e in materialized(instance)] == [NAME]
    with pytest.raises(UsageError, match="VIRNUCPRO_KEEP is all"):
        typed("clean")


def test_the_listing_for_people_and_programs(site: Finished) -> None:
    (line,) = typed("--json").splitlines()
    (detail,) = typed(NAME, "--json").splitlines()
    assert json.loads(line)["state"] == json.loads(detail)["state"] == "called"
    assert json.loads(line)["estimated"] is True
    assert json.loads(detail)["estimated"] is False
    assert [lane["done"] for lane in json.loads(detail)["lanes"]] == [
        lane["total"] for lane in json.loads(detail)["lanes"]
    ]
    text = typed(NAME)
    for words in ("rank 1 of 2", "esm_embeddings", "total"):
        assert words in text
    for words in (("absent",), ("--", "-h"), ("show", "--", "-h")):
        with pytest.raises(UsageError, match=r"not known|not a sample name"):
            typed(*words)
    with pytest.raises(UsageError, match="'' is not a sample name"):
        typed("")


def test_a_sample_is_removed_as_a_whole_and_only_when_asked(site: Finished) -> None:
    with open_instance() as instance:
        instance.add_dynamic_partitions("sample", [NAME, "gone"])
        with pytest.raises(UsageError, match="--yes"):
            typed("remove", NAME)
        with locked(site.sample.lock("chunks"), busy=""), pytest.raises(VirnucproError, match="process"):
            typed("remove", NAME, "--yes")
        assert site.sample.results.exists()
        typed("remove", NAME, "gone", "--yes")
        assert not site.sample.folder.exists()
        assert instance.get_dynamic_partitions("sample") == []
        with pytest.raises(UsageError, match="not known"):
            typed("remove", NAME, "--yes")


def test_a_prediction_whose_settings_were_changed_meanwhile_is_refused(site: Finished) -> None:
    files = [f.path for f in site.sample.inputs]
    changed = site.platform.sample_settings(cutoff=0.9)
    register(site.platform.folder, NAME, files, changed)
    failures = predict([site.sample], site.platform, Watch(*[lambda *_: None] * 3))
    assert isinstance(failures[NAME], UsageError)
    assert "has just changed the settings" in str(failures[NAME])


def test_a_configuration_that_dagster_cannot_use_is_one_line(site: Finished, tmp_path: Path) -> None:
    (tmp_path / "dagster").mkdir()
    for text, reason in (
        ("storage: {custom: {module: absent_module, class: Storage, config: {}}}", "absent_module"),
        ("storage: {nothing: {}}", "dagster.yaml"),
    ):
        (tmp_path / "dagster" / "dagster.yaml").write_text(text)
        with pytest.raises(UsageError, match=reason) as caught:
            open_instance()
        assert "\n" not in str(caught.value)


def test_a_quick_event_log_is_kept_open_and_not_synced_until_the_block_ends(tmp_path: Path) -> None:
    def synchronous() -> object:
        with log.index_connection() as connection:
            return connection.exec_driver_sql("PRAGMA synchronous").scalar()

    def of_somebody_else() -> object:
        with create_engine(f"sqlite:///{tmp_path / 'other.db'}").connect() as connection:
            return connection.exec_driver_sql("PRAGMA synchronous").scalar()

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        log = instance.event_log_storage
        assert isinstance(log, SqlEventLogStorage)
        instance.report_runless_asset_event(dg.AssetMaterialization("made"))
        written_ahead = next(tmp_path.rglob("index.db")).with_name("index.db-wal")
        assert not written_ahead.exists()
        full = synchronous()
        with quick_event_log(instance):
            engines = []
            for _ in range(2):
                instance.report_runless_asset_event(dg.AssetMaterialization("made"))
                assert written_ahead.exists()
                with log.index_connection() as connection:
                    engines.append(connection.engine)
            assert engines[0] is engines[1]  # made once: its statements are compiled once
            assert (full, synchronous(), of_somebody_else()) == (2, 1, 2)
            run = instance.create_run_for_job(dg.job(name="new")(lambda: None))
            of_the_run = written_ahead.with_name(f"{run.run_id}.db-wal")
            for _ in range(2):
                instance.report_engine_event("a run that began in the block", run)
            assert of_the_run.exists()
        assert not written_ahead.exists()
        assert not of_the_run.exists()
        assert synchronous() == full
        with log.index_connection() as connection:
            assert connection.engine is not engines[0]
        assert len(instance.fetch_materializations(dg.AssetKey("made"), limit=9).records) == 3
