"""What steps ask of a cluster, and what an environment that cannot work is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.support import ROOT
from virnucpro_assets.automation.sensors import dead_runs
from virnucpro_assets.definitions import defs
from virnucpro_assets.graph.engines import DEVICE_TAG, device_step, host_step
from virnucpro_assets.graph.records import one_line_failures
from virnucpro_assets.platform.resource import Platform

EMBEDDINGS = {"dnabert_embeddings", "esm_embeddings"}
ON_DEVICE = EMBEDDINGS | {f"{name}_checks" for name in EMBEDDINGS} | {"predictions"}


def test_every_step_says_what_it_asks_for_and_those_that_compute_ask_for_a_device() -> None:
    ops = [
        node.definition
        for name in ("sequences", "lane", "results")
        for node in defs.resolve_job_def(name).nodes
    ]
    assert all({"dagster-ray/config", "dagster-k8s/config"} <= set(op.tags) for op in ops)
    assert {op.name for op in ops if DEVICE_TAG in op.tags} == ON_DEVICE


def test_on_the_cpu_no_step_asks_for_a_gpu() -> None:
    asked = device_step(Platform(home="/nowhere"))
    assert asked["dagster-ray/config"]["num_gpus"] == 1
    for tags in (host_step(), device_step(Platform(home="/nowhere", device="cpu"))):
        assert tags["dagster-ray/config"]["num_gpus"] == 0
        assert "nvidia" not in json.dumps(tags)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"VIRNUCPRO_EXECUTOR": "pbs"}, "give one of in_process, slurm, ray, kubernetes"),
        ({"VIRNUCPRO_EXECUTOR": "ray", "VIRNUCPRO_GPUS": ""}, "number of GPUs of the cluster"),
    ],
)
def test_an_executor_that_cannot_work_is_refused_in_one_line(environment: dict[str, str], words: str) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "virnucpro_assets.cli.main", "models", "list"],
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert words in said.stderr
    assert said.stderr.count("\n") == 1


def test_runs_of_a_cluster_are_not_taken_for_dead(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    cluster = Platform(home=str(tmp_path), executor="ray")
    with dg.build_sensor_context(instance=instance, resources={"platform": cluster}) as context:
        skipped = dead_runs(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "the run launcher watches" in str(skipped.skip_message)
    assert cluster.asked().executor == "in_process"
    # With Slurm, only the steps are elsewhere.
    steps_elsewhere = Platform(home=str(tmp_path), executor="slurm")
    with dg.build_sensor_context(instance=instance, resources={"platform": steps_elsewhere}) as context:
        assert "dead runs found: 0" in str(dead_runs(context))


@pytest.mark.parametrize("terminated", [True, False])
def test_only_a_worker_that_is_moved_is_tried_again_and_not_a_run_that_is_ended(
    instance: dg.DagsterInstance, terminated: bool
) -> None:
    """On Ray and Kubernetes each step has a retry policy, and Dagster applies it to interrupts."""

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def interrupted(context: dg.AssetExecutionContext) -> None:
        with one_line_failures(context):
            if terminated:
                context.instance.report_run_canceling(context.run)
            raise dg.DagsterExecutionInterruptedError

    try:
        result = dg.materialize([interrupted], instance=instance, raise_on_error=False)
        events = result.all_events
    except dg.DagsterExecutionInterruptedError:
        pytest.fail("the interrupt left the step")
    retried = [e for e in events if e.event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert bool(retried) is not terminated
