"""One path of clicks through the web UI: pick a sample and a rank, materialize, see what was made and checked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import ROOT
from tests.support.browser import chromium
from tests.support.live_platform import Server, Site, wait_until, web_ui

if TYPE_CHECKING:
    from playwright.sync_api import Page

SAMPLE, LANE, SHARD_ROWS = "clicked", "0|clicked", 6
ASSET = "/assets/esm_embeddings"
CHECKS = ("digests_verify", "ids_conserved", "precision_holds", "records_agree", "values_finite")
NEWEST_RUN = "{ runsOrError(limit: 1) { ... on Runs { results { runId status tags { key value } } } } }"
NUMBERS = """query ($lane: [String!]) {
  assetNodeOrError(assetKey: {path: ["esm_embeddings"]}) { ... on AssetNode {
    assetMaterializations(partitions: $lane, limit: 1) { runId metadataEntries { label
      ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } } } } } }"""


@pytest.fixture
def site(tmp_path: Path, genomes: Path) -> Site:
    """A sample whose chunks and translations are there, and no embedding."""
    site = Site(tmp_path / "home")
    site.run(str(ROOT / "tests" / "support" / "live_platform.py"), SAMPLE, str(genomes), str(SHARD_ROWS))
    return site


@pytest.mark.browser
@pytest.mark.timeout(400)  # the server, the daemon and the run each start a Python of their own
def test_a_lane_is_materialized_by_clicking(site: Site) -> None:
    with web_ui(site) as server, chromium() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        earlier = newest_run(server)["runId"]
        launch(page, server)
        run = wait_until(lambda: ended_run(server, earlier), seconds=240, what="the run that was launched")
        assert run["status"] == "SUCCESS"
        assert {"key": "dagster/partition", "value": LANE} in run["tags"]

        numbers = materialization(server, run["runId"])
        assert numbers["shards"] >= 2
        assert numbers["world_size"] == 2
        assert numbers["tokens_per_second"] > 0
        assert 0 < numbers["packing_efficiency"] <= 1
        see_materialization(page, server, numbers)
        see_checks(page, server)


def launch(page: "Page", server: Server) -> None:
    """The launch dialog: each dimension has a drop-down, whose place the picked key then takes."""
    page.goto(f"{server.url}{ASSET}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    for key in LANE.split("|"):
        page.get_by_text("Select a partition or create one").first.click()
        page.get_by_role("menuitem").get_by_text(key, exact=True).first.click()
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch 1 run").click()


def see_materialization(page: "Page", server: Server, numbers: dict[str, Any]) -> None:
    page.goto(f"{server.url}{ASSET}?view=partitions&partition={LANE}")
    page.get_by_text("Materialized", exact=True).wait_for()
    rows = {
        name: page.get_by_role("row").filter(has_text=name).first for name in ("shards", "tokens_per_second")
    }
    assert str(numbers["shards"]) in rows["shards"].inner_text()
    assert str(numbers["tokens_per_second"])[:6] in rows["tokens_per_second"].inner_text()

    page.get_by_role("row").filter(has_text="throughput").get_by_text("Show Markdown").click()
    picture = page.get_by_role("dialog").get_by_role("img", name="throughput")
    picture.wait_for()
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 300


def see_checks(page: "Page", server: Server) -> None:
    page.goto(f"{server.url}{ASSET}?view=checks")
    page.get_by_text(f"Checks ({len(CHECKS)})").wait_for()
    for check in CHECKS:
        page.get_by_text(check, exact=True).first.wait_for()
    assert page.get_by_text("Succeeded", exact=True).count() == len(CHECKS)


def newest_run(server: Server) -> dict[str, Any]:
    return dict(server.ask(NEWEST_RUN)["runsOrError"]["results"][0])


def ended_run(server: Server, earlier: str) -> dict[str, Any]:
    """A run newer than `earlier` that has ended, else nothing."""
    run = newest_run(server)
    return run if run["runId"] != earlier and run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else {}


def materialization(server: Server, run_id: str) -> dict[str, Any]:
    """The numbers that the run recorded with the lane."""
    [made] = server.ask(NUMBERS, lane=[LANE])["assetNodeOrError"]["assetMaterializations"]
    assert made["runId"] == run_id
    return {e["label"]: e.get("intValue", e.get("floatValue")) for e in made["metadataEntries"]}
