"""`virnucpro samples`: each state as the folder shows it, and the line of the run that failed."""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from tests.assets.conftest import NAME, Finished, run
from virnucpro_assets.cli.main import app
from virnucpro_assets.graph.partitions import lane_key
from virnucpro_assets.platform.resource import Platform
from virnucpro_assets.running.runs import _why, latest_failure, latest_failures
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline.overview import overview, overviews
from virnucpro_core.samples.naming import enter
from virnucpro_core.samples.occupancy import shared_lock
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import Sample, register
from virnucpro_core.samples.settings import SampleSettings


def test_the_states_of_a_sample_from_its_last_to_its_first(finished: Finished) -> None:
    sample, home = finished.sample, finished.platform.folder
    whole = overview(home, NAME, exact=True)
    assert whole.state == "called"
    assert whole.records == 4
    assert all(there == total > 2 for there, total in whole.shards.values())
    files = [f for f in sample.folder.rglob("*") if f.is_file() and f.suffix != ".lock"]
    outside = (sample.folder / "sample.json").stat().st_size
    assert whole.total_bytes + outside == sum(f.stat().st_size for f in files)
    assert overview(home, NAME).total_bytes == pytest.approx(whole.total_bytes, rel=0.1)
    assert [(lane.rank, lane.state) for lane in whole.lanes] == [(0, "done"), (1, "done")] * 2
    for folder, state in (
        (sample.results, "scored"),
        (sample.product(PREDICTIONS), "embedded"),
        (sample.product(MERGED), "embedded"),
        (sample.product(ESM), "embedding"),
        (sample.product(DNABERT), "translated"),
        (sample.translations, "chunked"),
        (sample.chunks, "registered"),
    ):
        shutil.rmtree(folder)
        assert overview(home, NAME).state == state
    sample.rejected.write_text(json.dumps({"reason": "no good"}))
    assert (overview(home, NAME).state, overview(home, NAME).reason) == ("refused", "no good")
    assert [o.name for o in overviews(home)] == [NAME]


def test_why_the_latest_run_failed(
    sample: Sample, instance: dg.DagsterInstance, platform: Platform, tmp_path: Path
) -> None:
    assert latest_failure(instance, NAME) == ""
    run("lane", lane_key(NAME, 1), instance, platform, raise_on_error=False)
    assert "translations" in latest_failure(instance, NAME)
    run("sequences", NAME, instance, platform)
    assert latest_failure(instance, NAME) == ""
    file = tmp_path / "protein.fa"
    file.write_text(">p\nMKLFEILQ\n")
    instance.add_dynamic_partitions("sample", ["protein"])
    register(platform.folder, "protein", [file], platform.sample_settings())
    run("sequences", "protein", instance, platform, raise_on_error=False)
    assert "looks like protein" in latest_failure(instance, "protein")
    assert "looks like protein" in overview(platform.folder, "protein").reason
    assert list(latest_failures(instance, [NAME, "protein", "absent"])) == ["protein"]


def test_a_run_that_was_killed_is_said_to_be_interrupted() -> None:
    @dg.op
    def step() -> None:
        try:
            raise dg.DagsterExecutionInterruptedError
        except dg.DagsterExecutionInterruptedError as error:
            raise RuntimeError("a library") from error

    result = dg.GraphDefinition("all", node_defs=[step]).execute_in_process(raise_on_error=False)
    assert _why(result.all_events) == ("interrupted; the same command resumes", 3)


@pytest.mark.parametrize("damaged", ["chunks", "translations"])
def test_a_damaged_store_is_not_counted_as_there(finished: Finished, damaged: str) -> None:
    shutil.rmtree(finished.sample.results)
    (finished.sample.folder / damaged / "store.json").write_text("{")
    expected = {"chunks": "scored", "translations": "chunked"}[damaged]
    assert overview(finished.platform.folder, NAME).state == expected


def test_a_variant_is_listed_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    (tmp_path / "c.fa").write_text(">c\nACGT\n")
    own = SampleSettings(profile="demo")
    for settings in (own, replace(own, chunk_size=300, min_length=301, cutoff=0.7)):
        enter(tmp_path, "c", [tmp_path / "c.fa"], settings)
    listed = CliRunner().invoke(app, ["samples"]).output
    assert "  variant of c: chunk size 300, cutoff 0.7, min length 301\n" in listed
    shown = CliRunner().invoke(app, ["samples", "c-300-from301"]).output
    assert (
        "a variant of c: chunk size 300 instead of 500, cutoff 0.7 instead of 0.5, min length 301 instead of 0"
        in shown
    )
    _, facts = map(json.loads, CliRunner().invoke(app, ["samples", "--json"]).output.splitlines())
    assert facts["differs"] == {"chunk_size": [500, 300], "min_length": [0, 301], "cutoff": [0.5, 0.7]}
    remove_sample(tmp_path, "c")
    assert "  variant of c\n" in CliRunner().invoke(app, ["samples"]).output


DAMAGE = {
    "sample.json": b"{",
    "results/run.json": b"[]",
    "rejected.json": b"\xff",
    "telemetry/esm_embeddings-0.jsonl": b'{"event": "start"}\n[1]\n',
    "esm_embeddings/00001.json": b"",
    "esm_embeddings/0x.h5": b"?",
}


@pytest.mark.parametrize("file", DAMAGE)
def test_a_damaged_sample_is_listed_beside_the_others(finished: Finished, file: str) -> None:
    home = finished.platform.folder
    other = home / "samples" / "other"
    shutil.copytree(finished.sample.folder, other)
    (home / "samples" / "no name").mkdir()
    (home / "samples" / "no name" / "file").touch()
    (home / "samples" / "discarded" / "locks").mkdir(parents=True)
    (finished.sample.folder / file).write_bytes(DAMAGE[file])
    found = {o.name: o for o in overviews(home)}
    assert set(found) == {NAME, "other", "no name"}
    assert found["no name"].state == found["other"].state == "damaged"  # its sample.json says another name
    for one in (found[NAME], overview(home, NAME, exact=True)):
        assert one.state == (
            "damaged" if file in ("sample.json", "results/run.json", "rejected.json") else "called"
        )
    (finished.sample.folder / "sample.json").unlink()
    assert "sample.json is missing" in overview(home, NAME).reason


def test_who_works_on_a_sample_is_told(finished: Finished) -> None:
    shutil.rmtree(finished.sample.results)
    with locked(finished.sample.lock("esm_embeddings-1"), busy=""), shared_lock(finished.sample.folder):
        found = overview(finished.platform.folder, NAME)
    assert found.workers == {"esm_embeddings-1": f"process {os.getpid()} on {socket.gethostname()}"}
    assert [lane.state for lane in found.lanes] == ["done", "done", "done", "working"]
    assert overview(finished.platform.folder, NAME).workers == {}
