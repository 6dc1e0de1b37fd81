"""Submits, looks at and cancels Slurm jobs, with the site's own sbatch, scontrol, squeue, sacct and scancel.

Knows nothing of Dagster.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from virnucpro_core.errors import UsageError, VirnucproError, one_line

Options = Mapping[str, str | bool]
TIMEOUT_SECONDS = 60.0
# The states of a job that has ended. All others are on the way to RUNNING, RUNNING, or on the way out.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
FORGOTTEN = "FORGOTTEN"  # ours: neither the controller nor the accounting knows the job
# What Slurm's commands say if the controller does not answer now. Anything else is a refusal.
_PASSING = re.compile(
    "unable to contact slurm controller|socket timed out|connection refused|connection timed out"
    "|communication connection failure|zero bytes were transmitted|temporarily|transport endpoint"
    "|authentication|unexpected message",
    re.IGNORECASE,
)


class SlurmBusyError(VirnucproError):
    """The controller does not answer now. Ask again later."""


@dataclass(frozen=True, slots=True)
class Job:
    """What Slurm says of a job. state: one word in capitals, such as RUNNING. exit_code: `code:signal`."""

    number: str
    state: str
    reason: str = ""
    node: str = ""
    restarts: int = 0
    exit_code: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED or self.state == FORGOTTEN

    def __str__(self) -> str:
        words = [f"job {self.number} is {self.state}"]
        if self.node:
            words.append(f"on {self.node}")
        if self.restarts:
            words.append(f"(restart {self.restarts})")
        if self.reason:
            words.append(f"({self.reason})")
        if self.state == "FAILED" and self.exit_code:
            words.append(f"with exit code {self.exit_code}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Slurm:
    """The cluster that the commands on this machine reach. environment: the variables of the commands and the jobs."""

    environment: Mapping[str, str]

    def submit(self, script: str, options: Options) -> str:
        """Submit a batch script; returns the job's number. Raises UsageError if refused, and SlurmBusyError."""
        words = ["sbatch", "--parsable", *option_words(options)]
        return self._run(words, given=script).strip().partition(";")[0]

    def test(self, options: Options) -> str:
        """Ask whether a job with these options could ever start; returns what sbatch says. Raises as `submit`."""
        return self._run(["sbatch", "--test-only", *option_words(options)], given="#!/bin/sh\n")

    def find(self, name: str, comment: str) -> str:
        """Number of the job with this name and comment that has not ended; "" if there is none."""
        said = self._run(["squeue", "--me", "--noheader", f"--name={name}", "--format=%A %k"])
        found = [line.split(maxsplit=1) for line in said.splitlines()]
        return next((words[0] for words in found if words[1:] == [comment]), "")

    def look(self, number: str) -> Job:
        """The job, also some time after its end. Raises SlurmBusyError."""
        try:
            said = self._run(["scontrol", "show", "job", "--oneliner", number])
        except UsageError:  # the controller forgets a job some minutes after its end
            return self._remembered(number)
        fields: dict[str, str] = {}
        for name, value in re.findall(r"(?:^|\s)(\w+)=(\S*)", said):
            fields.setdefault(name, "" if value in ("(null)", "None") else value)
        return Job(
            number,
            fields.get("JobState", FORGOTTEN),
            fields.get("Reason", ""),
            fields.get("NodeList", ""),
            int(fields.get("Restarts") or 0),
            fields.get("ExitCode", ""),
        )

    def cancel(self, number: str) -> None:
        """End the job. Raises UsageError if Slurm refuses, and SlurmBusyError."""
        self._run(["scancel", number])

    def _remembered(self, number: str) -> Job:
        wanted = ["--format=State,ExitCode,NodeList", "--allocations", "--noheader", "--parsable2"]
        try:
            said = self._run(["sacct", f"--jobs={number}", *wanted])
        except UsageError:  # this cluster has no accounting
            return Job(number, FORGOTTEN)
        rows = [line.split("|") for line in said.splitlines() if line]
        if not rows:
            return Job(number, FORGOTTEN)
        state, exit_code, node = rows[-1]
        return Job(number, state.split()[0], node=node, exit_code=exit_code)  # "CANCELLED by 1000"

    def _run(self, words: list[str], given: str = "") -> str:
        """Standard output of a command. Raises UsageError with its last line, and SlurmBusyError."""
        try:
            done = subprocess.run(
                words,
                env=dict(self.environment),
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=TIMEOUT_SECONDS,
            )
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no program {words[0]} on PATH", remedy="run this on a machine that can submit jobs"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SlurmBusyError(f"{words[0]} took over {TIMEOUT_SECONDS:.0f} s") from error
        if done.returncode == 0:
            return done.stdout or done.stderr
        line = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        line = line.removeprefix(f"{words[0]}: ").removeprefix("error: ")
        if _PASSING.search(done.stderr):
            raise SlurmBusyError(one_line(words[0], line, ""))
        raise UsageError(line, where=words[0])


def option_words(options: Options) -> list[str]:
    """Options of sbatch as words of its command line. True is an option without a value; False leaves it out."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not False
    ]
