"""Chooses the executor that runs the steps, and sets the CPUs, memory and GPUs that each step requests from a cluster.

The steps run in the run's own process, as Slurm jobs, as Ray jobs, or as Kubernetes pods. Op tags hold the
requests; each executor reads only its own tags. This module does not know what a step computes.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from virnucpro_assets.platform.environment import (
    IN_PROCESS,
    SLURM,
    environment_of,
)
from virnucpro_assets.platform.places import job_environment
from virnucpro_assets.platform.resource import Platform, platform_from_environment
from virnucpro_assets.slurm.jobs import Slurm, option_words
from virnucpro_assets.slurm.requests import site_requests
from virnucpro_assets.slurm.steps import REQUESTS_TAG, defaults_of, slurm_executor
from virnucpro_core.errors import UsageError, VirnucproError

DEVICE_TAG = "virnucpro/device"
CPUS_BESIDE_A_DEVICE = 4
# Only one step of a run uses a device at a time: each rank has one device of the cluster, and the two encoders of a
# lane would otherwise request two.
_LIMITS = [{"key": DEVICE_TAG, "limit": 1}]


def host_step() -> dict[str, Any]:
    """Op tags of a step that needs no device."""
    return _requests(cpus=1, memory="8Gi", devices=0)


def device_step(platform: Platform) -> dict[str, Any]:
    """Op tags of a step that computes on the lane's device. If that is the CPU, the step requests no GPU."""
    return {DEVICE_TAG: "1"} | _requests(
        cpus=CPUS_BESIDE_A_DEVICE, memory="32Gi", devices=0 if platform.device == "cpu" else 1
    )


def _requests(*, cpus: int, memory: str, devices: int) -> dict[str, Any]:
    limits = {"memory": memory} | ({"nvidia.com/gpu": str(devices)} if devices else {})
    resources = {"requests": {"cpu": str(cpus), "memory": memory}, "limits": limits}
    slurm = [f"cpus-per-task={cpus}", f"mem={memory.removesuffix('i')}"]
    return {
        REQUESTS_TAG: " ".join(slurm + ([f"gres=gpu:{devices}"] if devices else [])),
        "dagster-ray/config": {"num_cpus": cpus, "num_gpus": devices},
        "dagster-k8s/config": {"container_config": {"resources": resources}},
    }


_PLATFORM = platform_from_environment()
HOST_STEP, DEVICE_STEP = host_step(), device_step(_PLATFORM)
# Any step can lose its worker, so every step is retried. The executor for Slurm submits lost jobs again by itself.
LOST_WORKER = None if _PLATFORM.executor in (IN_PROCESS, SLURM) else dg.RetryPolicy(max_retries=2, delay=5)


def executor_of(platform: Platform) -> dg.ExecutorDefinition:
    """The executor that `VIRNUCPRO_EXECUTOR` names. Raises UsageError if its package is not installed."""
    if platform.executor == IN_PROCESS:
        # The steps of a lane share one device, so they run one after another in the run's process.
        return dg.in_process_executor
    if platform.executor == SLURM:
        return slurm_executor(
            platform.folder, site_requests(), DEVICE_TAG, job_environment(platform), _LIMITS
        )
    variables = [f"{name}={value}" for name, value in environment_of(platform).items()]
    try:
        if platform.executor == "ray":
            from dagster_ray import ray_executor

            return ray_executor.configured(  # type: ignore[no-any-return]
                {"ray": {"env_vars": variables}, "tag_concurrency_limits": _LIMITS}
            )
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise UsageError(
            f"VIRNUCPRO_EXECUTOR is {platform.executor!r} and {error.name} is not installed",
            remedy=f'pip install "virnucpro[{platform.executor}]", or unset VIRNUCPRO_EXECUTOR',
        ) from error
    return k8s_job_executor.configured(  # type: ignore[no-any-return]
        {"env_vars": variables, "tag_concurrency_limits": _LIMITS}
    )


def examine_slurm(platform: Platform) -> Iterator[tuple[str, bool, str]]:
    """Ask Slurm whether it would take the jobs of each kind of step. Yields (kind, whether it would, what it says)."""
    slurm = Slurm(job_environment(platform))
    for kind, tags in (("host", host_step()), ("device", device_step(platform))):
        try:
            options = site_requests().options("", defaults_of(tags), device=DEVICE_TAG in tags)
            asked = " ".join(option_words(options))
            yield kind, True, f"{asked}: {slurm.test(options).strip().splitlines()[-1]}"
        except VirnucproError as error:
            yield kind, False, str(error)
