"""What a driver asks of its workers, and what they answer: one line of JSON each. Imports neither Dagster nor torch."""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Task:
    """A run of one of the jobs `sequences`, `lane` and `results` for these partition keys.

    driver: whose run it is (presence.py). rank: whose GPU computes. together: it is one of many small tasks, so what
    is loaded for it stays loaded.
    """

    job: str
    keys: tuple[str, ...]
    driver: str
    rank: int = 0
    together: bool = False

    def line(self) -> str:
        """The task as a line of text."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def read(line: str | bytes) -> "Task":
        """The task in such a line."""
        given = json.loads(line)
        return Task(**given | {"keys": tuple(given["keys"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task's run ended: the one line that says why it failed, or nothing; exit_code as of the command.

    failed: in a run of several samples those that it went on without, and why. died: the worker's process ended.
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
        """The outcome in such a line; None where it is some other text."""
        return Outcome(**json.loads(line)["outcome"]) if line.startswith('{"outcome"') else None
