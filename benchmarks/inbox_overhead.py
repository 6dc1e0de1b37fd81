"""Measure the overhead of the platform, from a file in the inbox to its consensus, with web UI and daemon running.

    python -m benchmarks.inbox_overhead --samples 3 --out benchmarks/results

Demo profile, one lane on the CPU. Samples are dropped one after another. Each is marked as complete by `NAME.done`, so
the waiting time for unmarked files is not counted. The work is the time that the sample's runs spend inside their
steps. Everything else is overhead: sensors, automation, queue, the start of run processes, Dagster's records.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measured import write_reads
from benchmarks.record import finish, print_table, provenance
from tests.support.live_platform import Server, Site, wait_until, web_ui

RUNS = """{ runsOrError(limit: 20) { ... on Runs { results { runId status startTime endTime creationTime
  tags { key value } stepStats { stepKey startTime endTime } } } } }"""


def main() -> None:
    """Drop the samples, wait for their runs, print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        site = Site(Path(temporary) / "home", gpus=1, extra={"OMP_NUM_THREADS": "1"})
        with web_ui(site) as server:
            wait_until((site.home / "inbox").exists, seconds=120, what="the inbox sensor")
            for number in range(options.samples):
                rows.append(one_sample(site, server, f"s{number}", options.reads))
    print_table(rows)
    finish(provenance() | {"rows": rows}, options.out, "inbox-overhead")


def one_sample(site: Site, server: Server, name: str, reads: int) -> dict[str, Any]:
    """Seconds from the drop to the end of the last run: in total, in steps, in starts of processes, between runs."""
    write_reads(site.home / f"{name}.fa", reads, seed=1 + int(name[1:]))
    (site.home / f"{name}.fa").rename(site.home / "inbox" / f"{name}.fa")
    dropped = time.time()
    (site.home / "inbox" / f"{name}.fa.done").touch()

    def ended() -> list[dict[str, Any]]:
        runs = server.ask(RUNS)["runsOrError"]["results"]
        mine = [
            r
            for r in runs
            if any(
                t["value"] == name
                for t in r["tags"]
                if t["key"] in ("dagster/partition", "dagster/partition/sample")
            )
        ]
        made = (site.home / "samples" / name / "results" / "run.json").exists()
        return mine if made and mine and all(r["status"] == "SUCCESS" for r in mine) else []

    runs = wait_until(ended, seconds=600, what=f"sample {name}")
    steps = sum(s["endTime"] - s["startTime"] for r in runs for s in r["stepStats"])
    waiting = sum(r["startTime"] - r["creationTime"] for r in runs)
    whole = max(r["endTime"] for r in runs) - dropped
    return {
        "sample": name,
        "runs": len(runs),
        "seconds": whole,
        "in_steps": steps,
        "overhead": whole - steps,
        "queued_and_starting": waiting,
        "in_runs_outside_steps": sum(r["endTime"] - r["startTime"] for r in runs) - steps,
    }


if __name__ == "__main__":
    main()
