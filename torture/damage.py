"""Damage files on disk (flip, cut, lengthen, delete, swap, duplicate), keep their time stamps, and run again.

A damaged product must be detected and named before anything is computed from it; the same run must repair it and must
not compute undamaged products again. A damaged model must be refused in one line that names its folder, before anything
is computed with it.
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
    """Damage files of a finished sample and of its models, one after another, until time or points are used up."""
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
    """A finished sample with its models, and the state that it must have again after every damage."""

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
        """Damage `target` and run again; yields (column of the table, finding) for everything wrong afterwards."""
        struck = self._damage(target, way)
        manifest._verify_once.cache_clear()  # a new process would have an empty cache, too
        if target in self.models:
            yield from self._model(target, struck)
        elif struck:
            yield from self._product(struck)

    def _damage(self, target: Path, way: str) -> list[Path]:
        """Change the file (and for a swap a second one of its kind). Returns the files whose bytes have changed."""
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
        except Exception as error:  # noqa: BLE001 - any error that the user would see
            yield "lost" if is_one_line(error) else "tracebacks", f"cannot be repaired: {error}"
            for file in self.made:
                _rewrite(file, self.whole[file])
            return
        after = self.pipeline.products()
        yield from (("lost", f"{f} is missing") for f in self.expected.keys() - after.keys())
        yield from (("wrong", f"{f} differs") for f in after if after[f] != self.expected.get(f))
        if not self._verifies():
            yield "wrong", "not all of it verifies after the rerun"
        yield from (
            ("lost", f"{f.name} was undamaged and made again") for f, t in before.items() if _time(f) != t
        )
        self.whole |= {f: f.read_bytes() for f in self.made if f.exists()}

    def _is_kept(self, file: Path, struck: list[Path]) -> bool:
        """Whether the run must not write the file again. A store or a shard is always written as a whole."""
        if "results" in file.parts:
            return False
        mates = [f for f in struck if f.parent == file.parent]
        if file.parent.name in ("chunks", "translations"):
            return not mates
        return not any(f.stem == file.stem for f in mates)

    def _model(self, target: Path, struck: list[Path]) -> Iterator[tuple[str, str]]:
        """Run with a damaged model. Some shards are deleted first, so that the run has to load the models."""
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
        """Whether one of the checks that a run makes reports the damage."""
        try:
            return not self._verifies()
        except VirnucproError as error:
            return is_one_line(error)

    def _verifies(self) -> bool:
        sample = open_sample(self.home, "reads")
        Chunks.open(sample.chunks).store.verify()
        Frames.open(sample.translations).store.verify()
        lanes = [self.pipeline.lane(sample, rank) for rank in range(RANKS)]
        looks = ((lane, lane.store(product)) for lane in lanes for product in PRODUCTS)
        return all(store.state(k, lane.ids(k)) == "done" for lane, store in looks for k in lane.shards)


def _rewrite(file: Path, data: bytes) -> None:
    """Write other bytes and restore the old time stamps, as on a failing disk."""
    stamps = file.stat() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    if stamps is not None:
        os.utime(file, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0
