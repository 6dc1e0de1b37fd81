"""The Kubernetes configuration, held against dagster-k8s's schema and the Kubernetes client's models: no cluster."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: pip install 'virnucpro[kubernetes]'")

import kubernetes
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

from virnucpro_assets.graph.engines import device_step, host_step
from virnucpro_assets.platform.instance import CONFIG
from virnucpro_assets.platform.resource import Platform

VALUES = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "values.yaml").read_text())
[DEPLOYMENT] = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]


def snake(value: Any) -> Any:
    """The chart writes its camel-case values into dagster.yaml like this."""
    if isinstance(value, dict):
        return {re.sub("(?=[A-Z])", "_", key).lower(): snake(v) for key, v in value.items()}
    return value


def launcher_config() -> dict[str, Any]:
    settings = snake({name: v for name, v in LAUNCHER.items() if name != "runK8sConfig"})
    raw = {re.sub("(?=[A-Z])", "_", name).lower(): part for name, part in LAUNCHER["runK8sConfig"].items()}
    service = {"instance_config_map": "instance", "service_account_name": "virnucpro"}
    return settings | service | {"run_k8s_config": raw}


def step_pod(tags: dict[str, Any]) -> Any:
    """The pod of a step with these op tags, as launcher, code location and tags together make it."""
    location = {
        "env": DEPLOYMENT["env"],
        "volumes": DEPLOYMENT["volumes"],
        "resources": DEPLOYMENT["resources"],
    }
    location |= {"volume_mounts": DEPLOYMENT["volumeMounts"], "image_pull_policy": "IfNotPresent"}
    context = K8sContainerContext.create_from_config(
        {"k8s": {"run_k8s_config": launcher_config()["run_k8s_config"]}}
    )
    context = context.merge(K8sContainerContext.create_from_config({"k8s": location}))
    asked = get_user_defined_k8s_config({key: json.dumps(value) for key, value in tags.items()})
    context = context.merge(K8sContainerContext(run_k8s_config=asked))
    config = DagsterK8sJobConfig(job_image="image", dagster_home="/opt/dagster")
    return construct_dagster_k8s_job(config, ["dagster"], "step", context.run_k8s_config).spec.template.spec


def snake_of(model: str, value: Any) -> Any:
    return k8s_snake_case_dict(getattr(kubernetes.client, model), value)


def test_the_run_launcher_accepts_its_configuration() -> None:
    checked = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher_config())
    assert checked.success, [error.message for error in checked.errors or []]


def test_a_step_that_computes_gets_one_gpu_the_shared_home_and_no_rights() -> None:
    pod = step_pod(device_step(Platform(home="/srv/virnucpro")))
    [container] = pod.containers
    assert container.resources.limits["nvidia.com/gpu"] == "1"
    assert container.resources.requests["cpu"] == "4"
    assert {m.mount_path for m in container.volume_mounts} >= {"/srv/virnucpro", "/dev/shm", "/tmp"}
    assert container.security_context.allow_privilege_escalation is False
    assert pod.security_context.run_as_non_root is True
    assert "nvidia.com/gpu" in [toleration.key for toleration in pod.tolerations]
    assert {v.name: v.value for v in container.env}["VIRNUCPRO_EXECUTOR"] == "kubernetes"


def test_a_step_that_computes_on_no_gpu_asks_for_none() -> None:
    for tags in (host_step(), device_step(Platform(home="/srv/virnucpro", device="cpu"))):
        assert "nvidia.com/gpu" not in step_pod(tags).containers[0].resources.limits


def test_what_the_values_hand_to_kubernetes_is_known_there() -> None:
    for volume in DEPLOYMENT["volumes"]:
        k8s_model_from_dict(kubernetes.client.V1Volume, snake_of("V1Volume", volume))
    k8s_model_from_dict(
        kubernetes.client.V1PodSecurityContext,
        snake_of("V1PodSecurityContext", DEPLOYMENT["podSecurityContext"]),
    )
    claim = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "storage.yaml").read_text())
    made = k8s_model_from_dict(
        kubernetes.client.V1PersistentVolumeClaim, snake_of("V1PersistentVolumeClaim", claim)
    )
    assert made.spec.access_modes == ["ReadWriteMany"]
    assert made.metadata.name == DEPLOYMENT["volumes"][0]["persistentVolumeClaim"]["claimName"]


def test_the_queue_is_limited_as_on_one_machine() -> None:
    limits = yaml.safe_load(CONFIG.read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
    config = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert config["tagConcurrencyLimits"] == limits


def test_the_definitions_load_with_the_executor_for_pods(tmp_path: Path) -> None:
    environment = (
        dict(os.environ) | {"VIRNUCPRO_DEVICE": ""} | {v["name"]: v["value"] for v in DEPLOYMENT["env"]}
    )
    code = "from virnucpro_assets.definitions import defs; print(defs.executor.name)"
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment | {"VIRNUCPRO_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "k8s"
