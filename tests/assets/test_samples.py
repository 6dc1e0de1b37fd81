"""`virnucpro samples`: each state as the folder shows it, and the line of the run that failed."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from tests.assets.conftest import NAME, Finished, run
from virnucpro_assets.partitions import lane_key
from virnucpro_assets.resources import Platform
from virnucpro_assets.runs import latest_failure
from virnucpro_core.lanes import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.overview import overview, overviews
from virnucpro_core.registry import Sample, register


def test_the_states_of_a_sample_from_its_last_to_its_first(finished: Finished) -> None:
    sample = finished.sample
    whole = overview(sample)
    assert whole.state == "called"
    assert whole.records == 4
    assert all(there == total > 2 for there, total in whole.shards.values())
    assert whole.bytes == sum(f.stat().st_size for f in sample.folder.rglob("*") if f.is_file())
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
        assert overview(sample).state == state
    sample.rejected.write_text(json.dumps({"reason": "no good"}))
    assert (overview(sample).state, overview(sample).reason) == ("refused", "no good")
    assert [o.name for o in overviews(finished.platform.folder)] == [NAME]


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
    assert "looks like protein" in overview(platform.sample("protein")).reason


@pytest.mark.parametrize("damaged", ["chunks", "translations"])
def test_a_damaged_store_is_not_counted_as_there(finished: Finished, damaged: str) -> None:
    shutil.rmtree(finished.sample.results)
    (finished.sample.folder / damaged / "store.json").write_text("{")
    expected = {"chunks": "scored", "translations": "chunked"}[damaged]
    assert overview(finished.sample).state == expected
