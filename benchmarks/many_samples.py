"""Measure the web UI with many samples: asset pages in a real browser, GraphQL requests, ticks of the automation.

    python -m benchmarks.many_samples --samples 10000 --storage sqlite --out benchmarks/results
    python -m benchmarks.many_samples --samples 10000 --storage postgres --out benchmarks/results

First it fills an instance with the partitions and materializations of that many finished samples on one rank. The
event log gets the same rows that Dagster's storage class writes, inserted in bulk, with as much metadata as those of a
real lane; only the last event of each asset is reported in the usual way. The samples have no files. Then it starts
`virnucpro ui` and opens each page in Chromium. It measures the seconds until the page shows its main content, and the
slowest GraphQL request until then: first without the daemon, then with it. PostgreSQL is Debian's package, started on
loopback for this run only.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import finish, print_table, provenance
from tests.support.browser import chromium
from tests.support.live_platform import ROOT, Server, Site, wait_until, web_ui
from torture.postgres import postgres_storage

if TYPE_CHECKING:
    import dagster as dg
    from playwright.sync_api import Page

SAMPLE_ASSETS = ("inbox", "chunks", "translations", "consensus")
LANE_ASSETS = ("dnabert_embeddings", "esm_embeddings", "merged_features", "predictions")
ROWS = 500
# Page -> a text that appears together with its main content.
PAGES = (
    ("/assets", "esm_embeddings"),
    ("/assets/consensus?view=partitions", "s00000"),
    ("/assets/consensus?view=partitions&partition=s00007", "Materialized"),
    ("/assets/esm_embeddings?view=partitions", "s00000"),
    ("/assets/esm_embeddings?view=partitions&partition=0|s00007", "Materialized"),
    ("/assets/consensus?view=events", "s0"),
    ("/runs", "Runs"),
)
TICKS = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__",
  repositoryLocationName: "virnucpro_assets.definitions"}) { ... on Sensors { results { name
  sensorState { ticks(limit: 20) { timestamp endTimestamp status } } } } } }"""


def fill(samples: int) -> dict[str, float]:
    """Write partitions and materializations of finished samples into the environment's instance."""
    import dagster as dg  # noqa: PLC0415 - reads the site's environment

    from virnucpro_assets.graph.partitions import lane_key  # noqa: PLC0415
    from virnucpro_assets.platform.instance import open_instance  # noqa: PLC0415

    names = [f"s{number:05}" for number in range(samples)]
    began = time.perf_counter()
    with open_instance() as instance:
        instance.add_dynamic_partitions("sample", names)
        for asset in (*SAMPLE_ASSETS[:3], *LANE_ASSETS, SAMPLE_ASSETS[3]):
            keys = [lane_key(name, 0) if asset in LANE_ASSETS else name for name in names]
            made = [dg.AssetMaterialization(asset, partition=key, metadata=metadata(asset)) for key in keys]
            for start in range(0, len(made) - 1, ROWS):
                store(instance, made[start : start + ROWS])
            instance.report_runless_asset_event(made[-1])
    return {"events": 8 * samples, "seconds": time.perf_counter() - began}


def store(instance: "dg.DagsterInstance", made: "list[dg.AssetMaterialization]") -> None:
    """Insert the rows that Dagster writes for these events, all in one statement."""
    import dagster as dg  # noqa: PLC0415
    from dagster._core.events import StepMaterializationData  # noqa: PLC0415
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage  # noqa: PLC0415

    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    events = [
        dg.EventLogEntry(
            error_info=None,
            level=20,
            user_message="",
            run_id="",
            timestamp=time.time(),
            dagster_event=dg.DagsterEvent(
                kind, job_name="", event_specific_data=StepMaterializationData(one)
            ),
        )
        for one in made
    ]
    log = instance.event_log_storage
    assert isinstance(log, SqlEventLogStorage)
    with log.index_connection() as connection:
        connection.execute(log.prepare_insert_event_batch(events))


def metadata(asset: str) -> dict[str, Any]:
    """Metadata of the same size as in a small lane's materialization."""
    import dagster as dg  # noqa: PLC0415

    figures = {f"figure_{i}": i * 1.5 for i in range(25 if asset in LANE_ASSETS else 6)}
    return figures | {"dagster/row_count": 540, "manifest": dg.MetadataValue.json({"0": "0" * 64})}


def main() -> None:
    """Fill the instance, open the pages, read the ticks; print tables and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with storage(options.storage, folder) as (config, extra):
            site = Site(folder / "home", gpus=1, extra=extra)
            (site.home / "dagster").mkdir(parents=True)
            text = (ROOT / "virnucpro_assets" / "platform" / "dagster.yaml").read_text()
            (site.home / "dagster" / "dagster.yaml").write_text(text + config)
            (site.home / "dagster" / ".nux").mkdir()
            (site.home / "dagster" / ".nux" / "nux.yaml").write_text("seen: 1\n")
            os.environ.update(site.environment)
            filled = fill(options.samples)
            print(f"{filled['events']:,} events in {filled['seconds']:,.0f} s", flush=True)
            with web_ui(site, read_only=True) as server:
                alone = look(server)
            with web_ui(site) as server:
                beside = look(server)
                ticks = wait_until(lambda: tick_seconds(server), seconds=300, what="ticks")
            result = provenance() | {
                "storage": options.storage,
                "samples": options.samples,
                "fill": filled,
                "pages": alone,
                "pages_beside_the_daemon": beside,
                "tick_seconds": ticks,
            }
    print_table(alone)
    print_table(beside)
    print(f"seconds per tick: {ticks}")
    finish(result, options.out, "many-samples", options.storage)


@contextlib.contextmanager
def storage(kind: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The additional text for dagster.yaml, and the environment that it refers to."""
    if kind == "sqlite":
        yield "", {}
        return
    with postgres_storage(folder / "postgres") as made:
        yield made


def look(server: Server) -> list[dict[str, Any]]:
    """Visit every page twice, in a fresh browser. The second visit counts: the server has loaded its code by then."""
    rows = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(90_000)
        for path, text in PAGES:
            for _ in range(2):
                row = visit(page, server, path, text)
            rows.append(row)
    return rows


def visit(page: "Page", server: Server, path: str, text: str) -> dict[str, Any]:
    """Seconds until `text` is on the page, and the slowest GraphQL request until then."""
    asked: list[float] = []

    def note(response: Any) -> None:
        if "/graphql" in response.url:
            asked.append(response.request.timing["responseStart"] / 1e3)

    page.goto("about:blank")
    page.on("response", note)
    began = time.perf_counter()
    page.goto(f"{server.url}{path}")
    page.get_by_text(text).first.wait_for()
    seconds = time.perf_counter() - began
    page.remove_listener("response", note)
    return {
        "page": path,
        "seconds": seconds,
        "graphql": len(asked),
        "slowest_answer": max(asked, default=0.0),
    }


def tick_seconds(server: Server) -> dict[str, list[float]]:
    """Seconds of the last ticks of each sensor; {} until each sensor has ended three ticks."""
    found = {}
    for sensor in server.ask(TICKS)["sensorsOrError"]["results"]:
        ticks = [t for t in sensor["sensorState"]["ticks"] if t["endTimestamp"]]
        found[sensor["name"]] = [round(t["endTimestamp"] - t["timestamp"], 2) for t in ticks]
    enough = all(len(found.get(name, [])) >= 3 for name in ("follow", "inbox"))
    return found if enough else {}


if __name__ == "__main__":
    main()
