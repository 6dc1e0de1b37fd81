"""Makes the pictures of the documentation: drops the demo genomes into an inbox and opens the browser.

The pictures of viral regions and of the page across samples show made-up scores. `make screenshots` runs it.
Two lanes on the CPU, the demo profile, a home of its own that is removed at the end;
about two minutes. Needs Chromium.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.support.browser import chromium  # noqa: E402
from tests.support.live_platform import Server, Site, wait_until, web_ui  # noqa: E402
from tests.support.scored import Scored, scored_sample, sequence  # noqa: E402
from virnucpro_core.results.batch import INDEX, BatchRow, write_batch  # noqa: E402
from virnucpro_core.results.folder import RUN  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).parent / "images"
GENOMES = [ROOT / "virnucpro_core" / "demo" / name for name in ("viral.fa", "non_viral.fa")]
SAMPLE = "demo"
WIDTH = 1600  # pixels
MARGIN = 24  # pixels around the graph
SETTLE_MS = 3000  # the UI draws in steps
DONE = """{ assetNodeOrError(assetKey: {path: ["consensus"]}) { ... on AssetNode {
  assetMaterializations(limit: 1) { runId } assetChecksOrError { ... on AssetChecks { checks {
    executionForLatestMaterialization { status } } } } } } }"""


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder) / "home", gpus=2, extra={"VIRNUCPRO_INBOX_STABLE_SECONDS": "2"})
        inbox = site.home / "inbox" / SAMPLE
        inbox.mkdir(parents=True)
        for genome in GENOMES:
            shutil.copy(genome, inbox)
        with web_ui(site) as server, chromium() as browser:
            wait_until(lambda: called(server), seconds=600, what="the calls")
            asset_graph(browser, server)
            materialization(browser, server)
            report(browser, site.home / "samples" / SAMPLE / "results" / "report.html")
            made_up(browser, Path(folder))
            evaluation(browser, site.home)


def called(server: Server) -> bool:
    """Whether the sample's consensus is there and checked."""
    node = server.ask(DONE)["assetNodeOrError"]
    checks = [c["executionForLatestMaterialization"] for c in node["assetChecksOrError"]["checks"]]
    return bool(node["assetMaterializations"]) and all(c and c["status"] == "SUCCEEDED" for c in checks)


def asset_graph(browser: "Browser", server: Server) -> None:
    """All assets with their partitions and checks; wide enough that the UI draws the nodes in full."""
    page = browser.new_page(viewport={"width": 3000, "height": 900})
    page.goto(f"{server.url}/asset-groups")
    page.get_by_text("sequences", exact=True).first.wait_for()
    page.keyboard.press("Alt+e")
    page.locator("svg foreignObject").get_by_text("consensus").wait_for()
    page.wait_for_timeout(SETTLE_MS)
    boxes = [box for node in page.locator("svg foreignObject").all() if (box := node.bounding_box())]
    left, top = (min(b[side] for b in boxes) - MARGIN for side in ("x", "y"))
    right = max(b["x"] + b["width"] for b in boxes) + MARGIN
    bottom = max(b["y"] + b["height"] for b in boxes) + MARGIN
    area = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    page.screenshot(path=IMAGES / "asset-graph.png", clip=area)
    page.close()


def materialization(browser: "Browser", server: Server) -> None:
    """The numbers that a lane recorded; the picture's dialog is moved aside, so that it hides none of them."""
    page = browser.new_page(viewport={"width": WIDTH + 100, "height": 1000})
    page.goto(f"{server.url}/assets/esm_embeddings?view=partitions&partition=0|{SAMPLE}")
    page.get_by_text("Hide navigation").click()
    page.get_by_text("Show Markdown").click()
    page.get_by_role("img", name="throughput").wait_for()
    page.wait_for_timeout(SETTLE_MS)
    page.add_style_tag(content=".dagster-backdrop { background: none !important }")
    page.locator(".dagster-dialog").evaluate(
        "(dialog, [x, y]) => { const now = dialog.getBoundingClientRect();"
        " dialog.style.transform = `translate(${x - now.x}px, ${y - now.y}px)` }",
        [74, 380],
    )
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=IMAGES / "materialization.png")
    page.close()


def report(browser: "Browser", file: Path) -> None:
    """The table of the calls, and the score tracks below it."""
    page = browser.new_page(viewport={"width": 1120, "height": 900}, device_scale_factor=1.5)
    page.goto(file.as_uri())
    page.wait_for_timeout(SETTLE_MS)
    tracks = page.get_by_role("heading", name="Scores along the sequence").bounding_box()
    assert tracks is not None
    split = tracks["y"] - 30
    for name, top, height in (("report", 0, split), ("report-tracks", split, 1100)):
        area = {"x": 0, "y": top, "width": 1120, "height": height}
        page.screenshot(path=IMAGES / f"{name}.png", clip=area, full_page=True)
    page.close()


def made_up(browser: "Browser", folder: Path) -> None:
    """Tracks with viral regions, and the page across samples. Scores are made up: no encoder runs."""
    rows = []
    for k, name in enumerate(("pat1", "pat2", "pat3")):
        (folder / name).mkdir()
        _made_up_sample(folder / name, seed=k).write(folder / name / "results", sample=name)
        facts = json.loads((folder / name / "results" / RUN).read_bytes())
        rows.append(BatchRow(name, "called", facts, 31.0 + 4 * k, f"./{name}/results/report.html"))
    reason = "pat4.fa: line 3: this id is also in line 1; make ids distinct, or give --duplicates rename"
    write_batch(folder, [*rows, BatchRow("pat4", "failed", reason=reason)])
    page = browser.new_page(viewport={"width": 1120, "height": 900}, device_scale_factor=1.5)
    page.goto((folder / "pat1" / "results" / "report.html").as_uri())
    page.locator("#figures").screenshot(path=IMAGES / "regions.png")
    page.goto((folder / INDEX).as_uri())
    page.screenshot(path=IMAGES / "across.png", full_page=True)
    page.close()


def _made_up_sample(folder: Path, *, seed: int) -> Scored:
    """A chromosome with a provirus candidate, a phage, and a contig of which two thirds are viral."""
    viral = {"chromosome_piece": range(80, 130), "phage": range(99), "contig": range(9, 99)}
    lengths = {"chromosome_piece": 60_100, "phage": 9_000, "contig": 9_000}
    fasta = "".join(f">{name}\n{sequence(n, 10 * seed + k)}\n" for k, (name, n) in enumerate(lengths.items()))
    made = scored_sample(folder, fasta, chunk_size=300)
    letters = np.random.default_rng(seed)
    virus = letters.uniform(0.02, 0.3, made.frames.n_unique).astype(np.float32)
    where = made.chunks.windows(0, made.chunks.n_chunks)
    for chunk, unique in zip(
        made.frames.frame_chunk.tolist(), made.frames.frame_unique.tolist(), strict=True
    ):
        name = made.chunks.ids[int(where.record[chunk])].decode()
        if int(where.number[chunk]) in viral[name]:
            virus[unique] = letters.uniform(0.7, 0.99)
    return Scored(made.chunks, made.frames, np.stack([1 - virus, virus], axis=1))


def evaluation(browser: "Browser", home: Path) -> None:
    """The evaluation of the demo's classifier on pieces of the demo's genomes, from its title to the calls."""
    out = home / "evaluation"
    own = [f"VIRNUCPRO_HOME={home}", "DAGSTER_HOME=", f"PYTHONPATH={ROOT}"]
    data = ["--virus", GENOMES[0], "--others", GENOMES[1], "--lengths", "600,1500,4000"]
    settings = ["--profile", "demo", "--chunk-size", "300", "--sample", "demo-pieces", "--out", out]
    program = ["env", *own, sys.executable, "-m", "virnucpro_assets.cli.main", "evaluate"]
    subprocess.run([*map(str, [*program, *data, *settings])], check=True)
    page = browser.new_page(viewport={"width": 1120, "height": 900})
    page.goto((out / "evaluation.html").as_uri())
    page.screenshot(
        path=IMAGES / "evaluation.png", clip={"x": 0, "y": 0, "width": 1120, "height": 1000}, full_page=True
    )
    page.close()


if __name__ == "__main__":
    main()
