"""One click path through the web UI: pick a sample and a rank, materialize, see what it made."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import chromium
from live_platform import ROOT, Server, Site, wait_until, web_ui

if TYPE_CHECKING:
    from playwright.sync_api import Page

DEMO = ROOT / "virnucpro_core" / "demo"
RUNS = "{ runsOrError(limit: 1) { ... on Runs { results { runId status tags { key value } } } } }"
MATERIALIZED = """query ($partition: [String!]) {
  assetNodeOrError(assetKey: {path: ["esm_embeddings"]}) { ... on AssetNode {
    assetMaterializations(partitions: $partition, limit: 1) { runId metadataEntries { label
      ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } } } } } }"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "home")
    site.home.mkdir()
    genome = tmp_path / "web.fa"
    genome.write_bytes((DEMO / "viral.fa").read_bytes().split(b">NC_001422", 1)[1].join([b">NC_001422", b""]))
    site.run(str(ROOT / "tests" / "live_platform.py"), "web", str(genome), "12")
    return site


def pick(page: "Page", dimension: int, key: str) -> None:
    """Tick a partition key in the launch dialog's drop-down of that dimension."""
    page.get_by_text("Select a partition or create one").nth(dimension).click()
    page.get_by_role("menuitem").get_by_text(key, exact=True).first.click()
    page.keyboard.press("Escape")


def finished_run(server: Server) -> dict[str, object]:
    """The newest run, once it has ended."""
    runs = server.ask(RUNS)["runsOrError"]["results"]
    return runs[0] if runs and runs[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED") else {}


@pytest.mark.browser
def test_one_lane_is_materialized_by_clicking(site: Site) -> None:
    with web_ui(site) as server, chromium() as browser:
        before = server.ask(RUNS)["runsOrError"]["results"][0]["runId"]
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(30_000)
        page.goto(f"{server.url}/assets/esm_embeddings?view=partitions")
        page.get_by_role("button", name="Materialize").first.click()
        pick(page, 0, "0")
        pick(page, 0, "web")
        page.screenshot(path="/tmp/shots/t1.png")
        page.get_by_role("button", name="Launch 1 run").click()
        wait_until(
            lambda: server.ask(RUNS)["runsOrError"]["results"][0]["runId"] != before, seconds=30, what="the run's start"
        )
        run = wait_until(lambda: finished_run(server), seconds=120, what="the run's end")
        page.screenshot(path="/tmp/shots/t2.png")
        print(run, server.ask(MATERIALIZED, partition=["0|web"]))
        page.goto(f"{server.url}/assets/esm_embeddings?view=partitions")
        import time; time.sleep(4)
        page.screenshot(path="/tmp/shots/t3.png")
        page.get_by_text("web", exact=True).first.click(); time.sleep(3)
        page.get_by_text("0", exact=True).first.click(); time.sleep(3)
        page.screenshot(path="/tmp/shots/t4.png")
