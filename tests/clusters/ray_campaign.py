"""A sample on a Ray cluster of four machines, one of which loses power while it computes; prints what happened as JSON.

Run by `test_ray` through `machines.enclosed`, with a folder of its own and the home that a local run filled.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from ray.job_submission import JobSubmissionClient

from tests.clusters.machines import Machine, Switch, wait_for
from tests.support import ROOT
from virnucpro_assets.graph.partitions import SAMPLES, lane_key
from virnucpro_assets.platform.instance import CONFIG
from virnucpro_assets.platform.resource import platform_from_environment
from virnucpro_core.files.locks import is_locked

TEMPORARY = Path("/mnt")
WORKERS = (2, 3, 4)
SHARDS_BEFORE = 3
PATIENCE = 900.0
# Ray notices a dead machine in half a minute; here in a few seconds.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
PLAIN = ["--object-store-memory=80000000", "--include-log-monitor=false", "--disable-usage-stats"]


def main(folder: Path, sample: str) -> dict[str, Any]:
    """The campaign: cluster, runs, power loss, the end of the runs; then the locks between two machines."""
    _prepare_instance(folder / "dagster", _start_cluster(folder))
    known = platform_from_environment().sample(sample)
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(SAMPLES.name), [sample])
        keys = ",".join(lane_key(sample, rank) for rank in range(2))
        command = [sys.executable, "-W", "ignore", "-m", "dagster", "job", "backfill", "--noprompt"]
        command += ["-m", "virnucpro_assets.definitions", "-j", "lane", "--partitions", keys]
        environment = dict(os.environ) | {"VIRNUCPRO_EXECUTOR": "ray"}
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr, cwd=ROOT)
        _say("runs are launched")
        victim, kept = _kill_while_it_computes(known.folder)
        _say(f"{victim} lost power")
        _wait(lambda: all(run.is_finished for run in instance.get_runs()), PATIENCE)
        runs = instance.get_runs()
        retried = [
            record.dagster_event.step_key
            for run in runs
            for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
            if record.dagster_event is not None
        ]
        _say("runs ended")
        return {
            "runs": [run.status.value for run in runs],
            "launcher": type(instance.run_launcher).__name__,
            "victim": victim,
            "retried": retried,
            "kept": all(path.stat().st_mtime_ns == then for path, then in kept.items()),
            "devices": _devices(),
            "locks": _locks_between(*(_MACHINES[n] for n in (1, *WORKERS) if _MACHINES[n].name != victim)),
        }


_MACHINES: dict[int, Machine] = {}
_STARTED = time.monotonic()


def _start_cluster(folder: Path) -> Machine:
    Switch()
    for number in (1, *WORKERS):
        _MACHINES[number] = Machine(number, TEMPORARY)
    head = _MACHINES[1]
    # The programs of this environment come first: a Ray job calls `dagster` and `python` by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *PLAIN]
    here = [
        f"--node-ip-address={head.address}",
        f"--dashboard-host={head.address}",
        f"--temp-dir={TEMPORARY}",
    ]
    log = folder / "head.log"
    environment = dict(os.environ) | QUICK
    head.start([*ray, "--head", "--port=6379", "--num-cpus=2", "--num-gpus=0", *here], log, env=environment)
    wait_for(log, "block forever", 180)
    for number in WORKERS:
        machine, log = _MACHINES[number], folder / f"worker-{number}.log"
        here = [f"--address={head.address}:6379", f"--node-ip-address={machine.address}"]
        machine.start([*ray, *here, "--num-cpus=4", "--num-gpus=1"], log, env=environment)
    for number in WORKERS:
        wait_for(folder / f"worker-{number}.log", "block forever", 180)
    _say("cluster is up")
    return head


def _prepare_instance(home: Path, head: Machine) -> None:
    settings = yaml.safe_load(CONFIG.read_text()) | yaml.safe_load(
        (ROOT / "deploy" / "ray" / "run_launcher.yaml").read_text()
    )
    del settings["concurrency"]  # the queue needs a daemon; here runs are launched at once
    settings["run_coordinator"] = {
        "module": "dagster._core.run_coordinator",
        "class": "DefaultRunCoordinator",
    }
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    os.environ["RAY_ADDRESS"] = f"http://{head.address}:8265"


def _kill_while_it_computes(sample: Path) -> tuple[str, dict[Path, int]]:
    """Cut the power of the machine that embeds for rank 1, and what was on disk by then, with its times."""
    store, lock = sample / "esm_embeddings", sample / "locks" / "esm_embeddings-1.lock"

    def at_work() -> bool:
        return is_locked(lock) and "machine" in lock.read_text() and len(_entries(store)) >= SHARDS_BEFORE

    _wait(at_work, PATIENCE, every=0.02)
    holder = lock.read_text()
    [machine] = [m for m in _MACHINES.values() if holder.endswith(m.name)]
    machine.lose_power()
    kept = [entry.with_suffix(".h5") for entry in _entries(store)]
    return machine.name, {path: path.stat().st_mtime_ns for path in kept}


def _entries(store: Path) -> list[Path]:
    return list(store.glob("[0-9]*.json"))


def _devices() -> str:
    """What CUDA_VISIBLE_DEVICES says in a Ray job that asked for one GPU."""
    client = JobSubmissionClient(os.environ["RAY_ADDRESS"])
    job = client.submit_job(entrypoint="echo visible=$CUDA_VISIBLE_DEVICES.", entrypoint_num_gpus=1)
    _wait(lambda: client.get_job_status(job).is_terminal(), 180)
    # Ray's own line with the command, which holds the name of the variable, may be in the log as well.
    [said] = re.findall(r"^visible=(.*)\.$", client.get_job_logs(job), re.MULTILINE)
    return str(said)


def _locks_between(one: Machine, other: Machine, *_: Machine) -> list[Any]:
    """`virnucpro storage`: nobody holds the lock, another machine holds it."""
    command = [sys.executable, "-m", "virnucpro_assets.cli.main", "storage"]
    asked = [subprocess.run(other.on([*command, "try"]), cwd=ROOT, check=False).returncode]
    log = Path(os.environ["VIRNUCPRO_HOME"]) / "hold.log"
    holder = one.start([*command, "hold", "--seconds", "120"], log, cwd=ROOT)
    wait_for(log, "holds the lock", 180)
    found = subprocess.run(other.on([*command, "try"]), cwd=ROOT, check=False, capture_output=True, text=True)
    holder.kill()
    return [*asked, found.returncode, found.stdout.strip()]


def _wait(done: Callable[[], bool], seconds: float, *, every: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(every)


def _say(words: str) -> None:
    sys.stderr.write(f"{time.monotonic() - _STARTED:6.1f} s: {words}\n")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2])) + "\n")
