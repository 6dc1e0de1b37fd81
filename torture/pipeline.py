"""Run a small real sample through the whole core on two ranks, without Dagster, and compare what is on disk.

Campaigns and tests use it; it damages nothing itself.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

from virnucpro_core.devices.compute import Compute, LoaderSettings
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.publish import TEMPORARY
from virnucpro_core.models import profiles
from virnucpro_core.models.profiles import DEMO, ResolvedProfile
from virnucpro_core.models.store import ModelStore
from virnucpro_core.pipeline.embed import embed_lane
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.score import merge_lane, score_lane
from virnucpro_core.pipeline.steps import call_sample, chunk_sample, translate_sample
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import Sample, register
from virnucpro_core.samples.settings import SampleSettings

RANKS = 2
PRODUCTS = (DNABERT, ESM, MERGED, PREDICTIONS)


def write_reads(path: Path, *, records: int = 8, seed: int = 1) -> Path:
    """Write a FASTA file of random reads (by the seed) of 60 to 200 bases, one of them empty."""
    letters = random.Random(seed)
    reads = ("".join(letters.choices("ACGT", k=letters.randint(60, 200))) for _ in range(records - 1))
    path.write_text("".join(f">read{i} seeded\n{read}\n" for i, read in enumerate(reads)) + ">empty\n")
    return path


@dataclass(frozen=True)
class Pipeline:
    """One sample in a home of its own. `run` does what the driver does and can be resumed in the same way."""

    home: Path
    reads: Path
    workers: int = 0
    models: Path = DEMO

    @cached_property
    def profile(self) -> ResolvedProfile:
        with mock.patch.object(profiles, "DEMO", self.models):
            return profiles.resolve_profile("demo", 300, ModelStore(self.home / "models"))

    @property
    def settings(self) -> SampleSettings:
        return SampleSettings(profile="demo", chunk_size=300, shard_rows=8)

    @property
    def folder(self) -> Path:
        return self.home / "samples" / "reads"

    def run(self) -> Sample:
        """Register, read, translate, embed, merge, score, call. Raises what the steps raise."""
        sample = self.prepared(self.register())
        compute = Compute("cpu", loader=LoaderSettings(workers=self.workers))
        for rank in range(RANKS):
            lane = self.lane(sample, rank)
            embed_lane(lane, DNABERT, compute, on_shard=_ignore)
            embed_lane(lane, ESM, compute, on_shard=_ignore)
            merge_lane(lane, on_shard=_ignore)
            score_lane(lane, compute, on_shard=_ignore)
        call_sample(self.lane(sample, 0))
        return sample

    def register(self) -> Sample:
        return register(self.home, "reads", [self.reads], self.settings)

    def prepared(self, sample: Sample) -> Sample:
        """The sample, after its chunks and translations were made."""
        chunk_sample(sample)
        translate_sample(sample)
        return sample

    def lane(self, sample: Sample, rank: int) -> Lane:
        return Lane(sample, self.profile, rank, RANKS)

    def products(self) -> dict[str, str]:
        """sha256 of every file of the sample's products; telemetry and locks do not count."""
        return {
            str(file.relative_to(self.folder)): sha256_file(file)
            for file in sorted(self.folder.rglob("*"))
            if file.is_file()
            and file.relative_to(self.folder).parts[0] not in ("telemetry", "locks", "logs")
            and not (file.suffix == ".json" and file.parent.name in PRODUCTS)  # contains times
        }

    def litter(self) -> list[str]:
        """Temporary files that are left."""
        return [str(f.relative_to(self.home)) for f in self.home.rglob(f"{TEMPORARY}*")]


def _ignore(_: object) -> None:
    pass
