"""A person opens the web UI, goes from the asset graph to a sample's calls, and from there to its report."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.browser import chromium
from tests.support.live_platform import Site, web_ui

SAMPLE, PREFIX = "clicked", "/lab"
PREDICT = (
    "-m",
    "virnucpro_assets.cli.main",
    "predict",
    "--profile",
    "demo",
    "--chunk-size",
    "300",
    "--quiet",
)


@pytest.mark.browser
@pytest.mark.timeout(
    400
)  # a prediction, and the server with its code server, each start a Python of their own
def test_from_the_asset_graph_to_the_report(tmp_path: Path, genomes: Path) -> None:
    """Below a path prefix, as behind a proxy: links must lead there, too."""
    site = Site(tmp_path / "home", gpus=1, extra={"VIRNUCPRO_URL_PREFIX": PREFIX, "VIRNUCPRO_DEVICE": "cpu"})
    site.run(*PREDICT, str(genomes), "--sample", SAMPLE, "--out", str(tmp_path / "out"))
    with web_ui(site, "--no-daemon", prefix=PREFIX) as server, chromium() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(f"{server.url}/asset-groups/")
        page.get_by_text("sequences", exact=True).first.wait_for()
        page.keyboard.press("Alt+e")  # opens all groups
        page.locator("svg foreignObject").get_by_text("consensus").first.click()
        page.get_by_role("link", name="View in Asset Catalog").click()
        page.get_by_text("Partitions", exact=True).first.click()
        page.get_by_text(SAMPLE, exact=True).first.click()

        calls = page.get_by_role("row").filter(has_text="scored_chunks").first
        calls.get_by_text("NC_001422.1").first.wait_for()
        assert "0.9494" in calls.inner_text()
        page.get_by_text("the first 4 of 4 records").first.wait_for()

        with page.expect_popup() as opened:
            page.get_by_role("link", name=f"{PREFIX}/results/{SAMPLE}/report.html").first.click()
        report = opened.value
        report.get_by_role("heading", name=SAMPLE).first.wait_for()
        assert report.url == f"{server.url}/results/{SAMPLE}/report.html"
        assert report.evaluate("window.origin") == "null"  # its scripts cannot call the web UI

        port = server.url.rpartition(":")[2].partition("/")[0]
        second = subprocess.run(
            [sys.executable, "-m", "virnucpro_assets.cli.main", "ui", "--port", port],
            env=site.environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert len(second.stderr.splitlines()) == 1
    log = (site.home / "ui.log").read_text()
    assert "\x1b" not in log
    assert len(log.splitlines()) < 5, log
