"""Dagster's executor for Slurm: each step of a run is a job, and the run's process watches the jobs.

What becomes of a job:
- Slurm queues it again (preempted, requeued, its node died): it stays the same job, and the same try.
- Slurm ended it for good (preempted without requeue): it is submitted again.
- It was lost (node, memory, time, killed): it is submitted again, TRIES times in all.
- Somebody cancelled it: the step fails. An interrupt is never turned into a retry.
- The run is terminated: its jobs are cancelled.
"""

import hashlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

from virnucpro_assets.platform.presence import hold_presence
from virnucpro_assets.platform.tags import KEYS_TAG
from virnucpro_assets.slurm.jobs import Job, Options, Slurm, SlurmBusyError
from virnucpro_assets.slurm.requests import Requests
from virnucpro_core.errors import UsageError

REQUESTS_TAG = "virnucpro/slurm"
TRIES = 3
WORKER = "virnucpro_assets.slurm.worker"
ARGUMENTS = "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS"
_LOG_TAIL = 4096


@dataclass
class _Submission:
    """A step that runs as a job. number: "" until sbatch has accepted it."""

    name: str
    options: Options
    arguments: str
    log: Path
    number: str = ""
    tries: int = 0
    submissions: int = 0
    refused: str = ""
    ended: bool = False  # an earlier look found that it had ended
    unsure: bool = False  # Slurm may have accepted the job, but did not answer
    said: str = ""

    @property
    def comment(self) -> str:
        """Tells this submission from all others, of this run and of earlier ones."""
        return f"{self.log.parent.name}/{self.submissions}"


class SlurmSteps(StepHandler):
    """Starts, watches and ends the jobs of one run's steps.

    device_tag: the tag of steps that compute on a GPU. environment: the variables of the jobs.
    """

    def __init__(
        self, home: Path, requests: Requests, device_tag: str, environment: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._home, self._requests, self._device_tag = home, requests, device_tag
        self._environment = dict(environment)
        self._steps: dict[str, _Submission] = {}
        self._present = False

    @property
    def name(self) -> str:
        return "slurm"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Submit the step's job. If Slurm refuses or does not answer, `check_step_health` says so."""
        context, run = step_handler_context, step_handler_context.dagster_run
        if not self._present:
            hold_presence(self._home, run.run_id)
            self._present = True
        step = _step_of(context)
        tags = context.step_tags[step]
        options = self._requests.options(step, defaults_of(tags), device=self._device_tag in tags)
        [arguments] = [
            pair["value"] for pair in context.execute_step_args.get_command_env() if pair["name"] == ARGUMENTS
        ]
        log = self._home / "logs" / "slurm" / run.run_id / f"{step}-%j.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._steps[step] = _Submission(
            job_name(self._home, step, run.tags, run.run_id), options, arguments, log
        )
        self._submit(context, step)
        return iter(())

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Look at the step's job, and submit it again if it was lost."""
        step = _step_of(step_handler_context)
        known = self._steps[step]
        try:
            if not known.number and not known.refused:
                self._submit(step_handler_context, step)
            if known.refused:
                return CheckStepHealthResult.unhealthy(known.refused)
            if not known.number:
                return CheckStepHealthResult.healthy()
            job = self._slurm(known).look(known.number)
        except SlurmBusyError as error:
            self._say(step_handler_context, step, f"Slurm does not answer: {error}")
            return CheckStepHealthResult.healthy()
        self._say(step_handler_context, step, str(job), job)
        if not job.ended:
            known.ended = False
            return CheckStepHealthResult.healthy()
        if not known.ended:  # the step's last events may be on their way: look once more
            known.ended = True
            return CheckStepHealthResult.healthy()
        return self._lost(step_handler_context, step, job)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Cancel the step's job."""
        step = _step_of(step_handler_context)
        known = self._steps[step]
        slurm = self._slurm(known)
        try:
            if known.unsure:
                known.number = slurm.find(known.name, known.comment)
            if known.number:
                slurm.cancel(known.number)
                said = f"job {known.number} is cancelled, because the run was terminated"
                self._say(step_handler_context, step, said)
        except (SlurmBusyError, UsageError) as error:
            said = f"the job could not be cancelled ({error}); run: scancel --me --name={known.name}"
            self._say(step_handler_context, step, said)
        return iter(())

    def _submit(self, context: StepHandlerContext, step: str) -> None:
        known = self._steps[step]
        slurm = self._slurm(known)
        options = dict(known.options) | {
            "job-name": known.name,
            "comment": known.comment,
            "output": str(known.log.parent).replace("%", "%%") + f"/{known.log.name}",
            "open-mode": "append",
            "chdir": str(self._home),
            "export": "ALL",
            "requeue": True,
            # Two jobs of one lane never run at once, also if a run that died has left one behind.
            "dependency": "singleton",
        }
        try:
            # An answer of sbatch that got lost must not make two jobs of one.
            found = slurm.find(known.name, known.comment) if known.unsure else ""
            known.number = found or slurm.submit(self._script(), options)
        except SlurmBusyError as error:
            known.unsure = True
            self._say(context, step, f"Slurm does not answer: {error}; the job will be submitted later")
            return
        except UsageError as error:
            known.refused = f"Slurm refuses the job: {error}"
            self._say(context, step, known.refused)
            return
        known.tries += 1
        known.submissions += 1
        known.ended = known.unsure = False
        asked = " ".join(f"{name}={value}" for name, value in known.options.items())
        self._say(context, step, f"submitted to Slurm as job {known.number} ({asked})")

    def _lost(self, context: StepHandlerContext, step: str, job: Job) -> CheckStepHealthResult:
        """What follows for a job that has ended without a result of its step."""
        known = self._steps[step]
        why = " ".join(filter(None, (str(job), self._last_words(known))))
        if job.state == "CANCELLED":
            return CheckStepHealthResult.unhealthy(
                f"{why}: it was cancelled in Slurm; finished shards are kept, start the run again to go on"
            )
        if job.state == "PREEMPTED":
            known.tries -= 1  # nobody's fault, however often
        if known.tries >= TRIES:
            return CheckStepHealthResult.unhealthy(
                f"{why}: lost {TRIES} times; its log is {self._log(known)}"
            )
        self._say(
            context, step, f"{why}: lost; it is submitted again (try {known.tries + 1} of {TRIES})", job
        )
        known.number = ""
        self._submit(context, step)
        return CheckStepHealthResult.healthy()

    def _say(self, context: StepHandlerContext, step: str, words: str, job: Job | None = None) -> None:
        """Show a line in the run's log in the web UI, unless it says the same as the last one."""
        known = self._steps[step]
        if words == known.said:
            return
        known.said = words
        metadata: dict[str, Any] = {"job": known.number, "job_name": known.name, "log": self._log(known)}
        if job is not None:
            metadata |= {"state": job.state, "node": job.node, "restarts": job.restarts}
        DagsterEvent.engine_event(
            context.get_step_context(step),
            words,
            EngineEventData(
                metadata={
                    name: dg.MetadataValue.path(value) if name == "log" else value
                    for name, value in metadata.items()
                    if value != ""
                }
            ),
        )

    def _script(self) -> str:
        """The batch script. The job's variables come from the environment of sbatch."""
        start = shlex.join([sys.executable, "-P", "-m", WORKER])
        return "\n".join(["#!/bin/bash", self._requests.setup, f"exec {start}", ""])

    def _slurm(self, known: _Submission) -> Slurm:
        return Slurm(self._environment | {ARGUMENTS: known.arguments})

    def _log(self, known: _Submission) -> str:
        return str(known.log).replace("%j", known.number) if known.number else ""

    def _last_words(self, known: _Submission) -> str:
        """The last line that the job wrote, except Slurm's own; "" if there is none."""
        try:
            with Path(self._log(known)).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - _LOG_TAIL))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        own = [line.strip() for line in lines if line.strip() and not line.startswith("slurmstepd")]
        return f"after it said {own[-1][:200]!r}" if own else ""


def slurm_executor(
    home: Path,
    requests: Requests,
    device_tag: str,
    environment: Mapping[str, str],
    limits: list[dict[str, Any]],
) -> dg.ExecutorDefinition:
    """The executor that runs steps as Slurm jobs. limits: Dagster's `tag_concurrency_limits` within a run."""

    @dg.executor(name="slurm", requirements=multiple_process_executor_requirements())
    def slurm(_: dg.InitExecutorContext) -> StepDelegatingExecutor:
        return StepDelegatingExecutor(
            SlurmSteps(home, requests, device_tag, environment),
            retries=RetryMode.ENABLED,
            check_step_health_interval_seconds=requests.check_seconds,
            tag_concurrency_limits=limits,
        )

    return slurm


def job_name(home: Path, step: str, tags: Mapping[str, str], run_id: str) -> str:
    """The same for every job of one step, partition and home: `esm_embeddings.0.sampleA.4f1c2a`."""
    partition = tags.get("dagster/partition") or tags.get(KEYS_TAG) or run_id
    digest = hashlib.sha256(f"{home}\n{partition}".encode()).hexdigest()[:6]
    readable = partition if "dagster/partition" in tags else "several"
    return ".".join([step, *readable.split("|"), digest])


def defaults_of(tags: Mapping[str, Any]) -> dict[str, str | bool]:
    """Options of sbatch that a step's op tags ask for."""
    pairs = (word.partition("=") for word in str(tags.get(REQUESTS_TAG, "")).split())
    return {name: value for name, _, value in pairs}


def _step_of(context: StepHandlerContext) -> str:
    [step] = context.execute_step_args.step_keys_to_execute or []
    return step
