"""An inbox in a home of its own, whose clock the tests set."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from virnucpro_core.pipeline.steps import chunk_sample
from virnucpro_core.samples.inbox import Look, look
from virnucpro_core.samples.inbox_state import InboxState
from virnucpro_core.samples.sample import Sample, open_sample
from virnucpro_core.samples.settings import SampleSettings

FASTA, FASTQ = b">a\nACGTACGT\n", b"@a\nACGT\n+\nIIII\n"
STABLE = 10.0
SETTINGS = SampleSettings(profile="demo")


class Inbox:
    """An inbox in a home of its own, whose clock the tests set."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder, self.heard = home, home / "inbox", 0
        self.folder.mkdir()

    def drop(self, name: str, content: bytes = FASTA) -> Path:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content)
        return file

    def look(self, now: float, **options: Any) -> Look:
        settings = options.pop("settings", SETTINGS)
        given = {"settings": lambda found: replace(settings, **found)} | options
        seen = look(self.home, now=now, stable_seconds=STABLE, heard=self.heard, **given)
        self.heard = seen.number if seen.registered else self.heard
        return seen

    def names(self, now: float) -> list[str]:
        return self.look(now).registered

    def said(self) -> dict[str, str]:
        """What is noted of every entry."""
        with InboxState(self.home) as state:
            return {os.fsdecode(name): row.said for name, row in state.rows.items()}

    def sample(self, name: str) -> Sample:
        return open_sample(self.home, name)

    def call(self, name: str) -> None:
        """Read the sample's files, and leave what says that it has been called."""
        sample = self.sample(name)
        chunk_sample(sample)
        sample.results.mkdir(exist_ok=True)
        (sample.results / "run.json").write_text('{"counts": {"records": 1}}')
