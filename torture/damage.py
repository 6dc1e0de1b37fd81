"""What lies on disk is flipped, cut, lengthened, deleted, swapped and duplicated, with its time stamps kept.

A product: the damage is noticed by name before anything is made from it, the same run mends it, and what was sound
is not made again. A model: refused in one line that names its folder, with nothing computed from it.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torture.lines import is_one_line
from torture.pipeline import PRODUCTS, RANKS, Pipeline, write_reads
from torture.table import Row, Task, campaign
from virnucpro_core.errors import VirnucproError
from virnucpro_core.files import manifest
from virnucpro_core.models.profiles import DEMO
from virnucpro_core.samples.sample import open_sample
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

WAYS = ("flip", "cut", "lengthen", "delete", "duplicate", "swap")


@campaign("damage at rest", share=0.5)
def damage_at_rest(task: Task) -> Sequence[Row]:
    return [run_damage(task.folder, seconds=task.seconds, seed=task.seed)]


def run_damage(folder: Path, *, seconds: float, seed: int, points: int = 1_000_000) -> Row:
    """Strike files of a finished sample and its models, in turn, until the time or the number of points is over."""
    row, letters, started = Row("damage at rest"), random.Random(seed), time.monotonic()
    home = folder.resolve() / "home"
    models = shutil.copytree(DEMO, folder.resolve() / "models")
    pipeline = Pipeline(home, write_reads(folder / "reads.fa", records=40), models=models)
    pipeline.run()
    scene = _Scene(pipeline, letters)
    while row.points < points and time.monotonic() - started < seconds:
        target = letters.choice(scene.targets)
        way = letters.choice(WAYS)
        row.points += 1
        for kind, found in scene.strike(target, way):
            setattr(row, kind, getattr(row, kind) + 1)
            row.findings.append(f"{way} {target.relative_to(folder.resolve())}: {found}")
    row.seconds, row.note = time.monotonic() - started, f"{len(scene.targets)} files"
    return row


class _Scene:
    """A finished sample with its models, and how it must look after every strike."""

    def __init__(self, pipeline: Pipeline, letters: random.Random) -> None:
        self.pipeline, self.letters = pipeline, letters
        self.expected = pipeline.products()
        home, models = pipeline.home, pipeline.models
        folders = [f"classifier_{size}" for size in (300,)] + ["esm2", "dnabert_s"]
        self.models = [f for folder in folders for f in sorted((models / folder).iterdir())]
        made = [f for f in sorted(pipeline.folder.rglob("*")) if f.is_file()]
        self.made = [f for f in made if f.relative_to(pipeline.folder).parts[0] not in ("locks", "telemetry")]
        self.targets = self.made + self.models
        self.whole = {f: f.read_bytes() for f in self.targets}
        self.home = home

    def strike(self, target: Path, way: str) -> Iterator[tuple[str, str]]:
        """(column of the table, finding) for everything that is not as it should be afterwards."""
        struck = self._damage(target, way)
        manifest._verify_once.cache_clear()  # as in the new process that would meet the damage
        if target in self.models:
            yield from self._model(target, struck)
        elif struck:
            yield from self._product(struck)

    def _damage(self, target: Path, way: str) -> list[Path]:
        """Change the file, and for a swap its like; the files whose bytes are now others."""
        like = [f for f in self.targets if f.suffix == target.suffix and f != target]
        other = self.letters.choice(like or [target])
        whole, place = self.whole[target], self.letters.randrange(max(1, len(self.whole[target])))
        if way == "delete":
            target.unlink()
        elif way == "flip" and whole:
            _rewrite(target, whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        elif way == "cut":
            _rewrite(target, whole[:place])
        elif way == "lengthen":
            _rewrite(target, whole + b"\0")
        elif way == "duplicate":
            _rewrite(target, self.whole[other])
        elif way == "swap" and target not in self.models and other not in self.models:
            _rewrite(target, self.whole[other])
            _rewrite(other, whole)
        return [f for f in (target, other) if not f.exists() or f.read_bytes() != self.whole[f]]

    def _product(self, struck: list[Path]) -> Iterator[tuple[str, str]]:
        if not any("results" in f.parts for f in struck) and not self._noticed():
            yield "wrong", "not noticed"
        before = {f: f.stat().st_mtime_ns for f in self.made if f.exists() and self._is_kept(f, struck)}
        try:
            self._again().run()
        except Exception as error:  # noqa: BLE001 - what a person would see, whatever it is
            yield "lost" if is_one_line(error) else "tracebacks", f"cannot be mended: {error}"
            for file in self.made:
                _rewrite(file, self.whole[file])
            return
        after = self.pipeline.products()
        yield from (("lost", f"{f} is gone") for f in self.expected.keys() - after.keys())
        yield from (("wrong", f"{f} differs") for f in after if after[f] != self.expected.get(f))
        if not self._sound():
            yield "wrong", "not all of it verifies after the rerun"
        yield from (
            ("lost", f"{f.name} was sound and made again") for f, t in before.items() if _time(f) != t
        )
        self.whole |= {f: f.read_bytes() for f in self.made if f.exists()}

    def _is_kept(self, file: Path, struck: list[Path]) -> bool:
        """Whether the run has no reason to write the file again: a store or a shard is made as a whole."""
        if "results" in file.parts:
            return False
        mates = [f for f in struck if f.parent == file.parent]
        if file.parent.name in ("chunks", "translations"):
            return not mates
        return not any(f.stem == file.stem for f in mates)

    def _model(self, target: Path, struck: list[Path]) -> Iterator[tuple[str, str]]:
        """Something is left to compute, so that the models are asked for."""
        for product in PRODUCTS:
            shutil.rmtree(self.pipeline.folder / product)
        try:
            self._again().run()
        except VirnucproError as error:
            if not is_one_line(error) or target.parent.name not in str(error):
                yield "tracebacks", str(error)
        except Exception as error:  # noqa: BLE001
            yield "tracebacks", f"{type(error).__name__}: {error}"
        else:
            after = self.pipeline.products()
            differs = [f for f in after if after[f] != self.expected[f] and "run.json" not in f]
            if struck and (target.name != manifest.MANIFEST or differs):
                yield "wrong", f"computed with it; {len(differs)} files differ"
        _rewrite(target, self.whole[target])
        self._again().run()
        self.whole |= {f: f.read_bytes() for f in self.made}

    def _again(self) -> Pipeline:
        return Pipeline(self.home, self.pipeline.reads, models=self.pipeline.models)

    def _noticed(self) -> bool:
        """Whether one of the looks that a run takes names the damage."""
        try:
            return not self._sound()
        except VirnucproError as error:
            return is_one_line(error)

    def _sound(self) -> bool:
        sample = open_sample(self.home, "reads")
        Chunks.open(sample.chunks).store.verify()
        Frames.open(sample.translations).store.verify()
        lanes = [self.pipeline.lane(sample, rank) for rank in range(RANKS)]
        looks = ((lane, lane.store(product)) for lane in lanes for product in PRODUCTS)
        return all(store.state(k, lane.ids(k)) == "done" for lane, store in looks for k in lane.shards)


def _rewrite(file: Path, data: bytes) -> None:
    """Other bytes under the old time stamps, as a failing disk has them."""
    stamps = file.stat() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    if stamps is not None:
        os.utime(file, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0
