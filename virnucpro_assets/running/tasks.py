"""The messages between driver and workers: tasks and outcomes, one line of JSON each. Imports no Dagster, no torch."""

import json
from dataclasses import asdict, dataclass, field

HOST = "host"  # name of the worker for work without a GPU
PREPARE = "prepare"
AHEAD = "ahead"
END = "end"


@dataclass(frozen=True, slots=True)
class Task:
    """One run of the job `sequences`, `lane` or `results` for these partition keys.

    driver: name of the driver (see presence.py). rank: the rank whose GPU computes. The job PREPARE is no run: the
    worker loads the models of the lane `keys[0]`, so that they are there when its first lane comes. Nor is AHEAD: these
    lanes come next, and the worker embeds them while it records those before. After the job END the worker ends. These
    three have no outcome.
    """

    job: str
    keys: tuple[str, ...]
    driver: str
    rank: int = 0

    @property
    def is_shared(self) -> bool:
        """Whether it is a run of several lanes."""
        return self.job == "lane" and len(self.keys) > 1

    def line(self) -> str:
        """The task as a line of text."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def read(line: str | bytes) -> "Task":
        """Parse a line that `line` made."""
        given = json.loads(line)
        return Task(**given | {"keys": tuple(given["keys"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task's run ended.

    failure: one line that says why it failed; "" if it did not fail. exit_code: as for the command. failed: sample ->
    why it failed, for samples that failed while the others of the run went on. died: the worker's process ended.
    """

    failure: str = ""
    exit_code: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    died: bool = False

    def line(self) -> str:
        """The outcome as a line of text."""
        return json.dumps({"outcome": asdict(self)}) + "\n"

    @staticmethod
    def read(line: str) -> "Outcome | None":
        """Parse a line that `line` made; None for any other text."""
        return Outcome(**json.loads(line)["outcome"]) if line.startswith('{"outcome"') else None
