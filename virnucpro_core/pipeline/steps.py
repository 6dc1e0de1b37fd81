"""The steps for a whole sample, before and after the lanes: files to chunks, chunks to frames, scores to results.

A product on disk is reused if it was made from the same input and verifies; otherwise it is made again.
"""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from virnucpro_core import __version__
from virnucpro_core.errors import InputError, StoreError, shown_name
from virnucpro_core.files.disk import disk_errors, make_sure_of_room, reading_bytes
from virnucpro_core.files.locks import locked
from virnucpro_core.files.publish import publish_json, sweep
from virnucpro_core.pipeline.adopt import adopt_store
from virnucpro_core.pipeline.imported import read_import
from virnucpro_core.pipeline.lane import Lane, open_chunks
from virnucpro_core.pipeline.score import collect_scores
from virnucpro_core.results.blocks import Stores
from virnucpro_core.results.calibration import frames_in_words
from virnucpro_core.results.folder import Calling, write_results
from virnucpro_core.results.regions import RegionRule
from virnucpro_core.results.summary import ResultSummary, RunInfo, RunInput
from virnucpro_core.results.viral_reads import ReadSource
from virnucpro_core.samples.content import made_from, with_content
from virnucpro_core.samples.inputs import passing_error
from virnucpro_core.samples.occupancy import shared_lock
from virnucpro_core.samples.products import CHUNKS, EMBEDDINGS, PRODUCTS, TRANSLATIONS, is_current
from virnucpro_core.samples.sample import Sample
from virnucpro_core.samples.settings import shown_settings
from virnucpro_core.sequences.chunks import Chunks, write_chunks
from virnucpro_core.sequences.frames import Frames, write_frames
from virnucpro_core.sequences.names import is_packed

# More processes than this would wait for the one that reads and writes.
PROCESSES = 8
PACKAGES = ("torch", "numpy", "h5py", "dnaio")


def chunk_sample(sample: Sample) -> Chunks:
    """Read the inputs and cut them into chunks. A refused input is recorded in the sample's folder (InputError)."""
    with disk_errors(sample.chunks), _refusals(sample):
        sample = with_content(sample)
    with _locked(sample, "chunks"):
        with contextlib.suppress(StoreError):  # missing or damaged: made below
            made = Chunks.open(sample.chunks)
            if made_from(made, sample):
                made.store.verify()
                return made
        if adopt_store(sample, CHUNKS, lambda folder: made_from(Chunks.open(folder), sample)):
            with contextlib.suppress(StoreError):  # damaged there: made below
                made = Chunks.open(sample.chunks)
                made.store.verify()
                return made
        packed = sum(f.bytes for f in sample.inputs if is_packed(f.path))
        letters = sum(f.bytes for f in sample.inputs) - packed
        make_sure_of_room(
            sample.folder, reading_bytes(letters, packed=packed), "to read and translate the sample"
        )
        with _refusals(sample):
            made = write_chunks(
                [f.path for f in sample.inputs],
                sample.chunks,
                chunk_size=sample.settings.chunk_size,
                duplicates=sample.settings.duplicates,
                options=sample.settings.reading,
                version=PRODUCTS[CHUNKS].version,
            )
            if not made_from(made, sample):
                raise InputError(
                    "changed since the sample was registered",
                    path=sample.inputs[0].path,
                    remedy="predict it again",
                )
        sample.rejected.unlink(missing_ok=True)
        return made


@contextlib.contextmanager
def _refusals(sample: Sample) -> Iterator[None]:
    """Record an InputError of the block in the sample's folder, so that no schedule tries the sample again.

    A file that cannot be read at this moment is not recorded; it becomes a StoreError.
    """
    try:
        yield
    except InputError as error:
        passing = passing_error(error)
        if passing is not None:
            remedy = "check its permissions and the disk, then run the same command again"
            raise StoreError(
                f"cannot be read: {passing.strerror}", where=error.path, remedy=remedy
            ) from error
        publish_json(sample.rejected, {"reason": str(error), "content": sample.content})
        raise


def translate_sample(sample: Sample, *, cores: int = 1) -> Frames:
    """Translate the sample's chunks in six frames and keep identical frames once. cores: how many may be used."""
    with _locked(sample, "translations"):
        chunks, min_open = open_chunks(sample), sample.settings.open_length
        with contextlib.suppress(StoreError):
            if _translated_from(sample.translations, chunks, min_open):
                made = Frames.open(sample.translations)
                made.store.verify()
                return made
        if adopt_store(sample, TRANSLATIONS, lambda folder: _translated_from(folder, chunks, min_open)):
            with contextlib.suppress(StoreError):
                made = Frames.open(sample.translations)
                made.store.verify()
                return made
        chunks.store.verify()
        version = PRODUCTS[TRANSLATIONS].version
        return write_frames(
            chunks,
            sample.translations,
            version=version,
            processes=_processes(cores),
            min_open=min_open,
        )


def _translated_from(folder: Path, chunks: Chunks, min_open: int) -> bool:
    frames = Frames.open(folder)
    is_same = frames.attrs["chunks"] == chunks.digest and frames.min_open == min_open
    return bool(is_same and is_current(frames.attrs, TRANSLATIONS))


def _processes(cores: int) -> int:
    """How many processes compute a large sample's step together. One reads and writes."""
    return max(1, min(cores // 2, PROCESSES))


def call_sample(lane: Lane, made: Mapping[str, Any] | None = None, *, cores: int = 1) -> ResultSummary:
    """Join the scores of all lanes and write the results folder. Raises StoreError for shards that do not verify.

    made: when, where and by which command, for `run.json` (`samples.asked.made_by`). cores: how many may be used.
    """
    sample = lane.sample
    with _locked(sample, "consensus"):
        chunks = open_chunks(sample)
        chunks.store.verify()
        return write_results(
            Stores(chunks, lane.frames),
            collect_scores(lane),
            sample.results,
            calling=_calling(lane),
            run=replace(run_info(lane), made=made or {}, frames_note=frames_note(lane)),
            reads=ReadSource(sample.inputs, sample.settings.pairs),
            processes=_processes(cores),
        )


def _calling(lane: Lane) -> Calling:
    settings = lane.sample.settings
    regions = RegionRule(settings.region_min_length, settings.region_min_support)
    return Calling(settings.cutoff, lane.calibration, settings.prior, settings.preset, regions)


def run_info(lane: Lane) -> RunInfo:
    """The inputs, settings, models and versions that the sample's scores were made with."""
    sample = lane.sample
    digests = {
        "sample": sample.content,
        "chunks": Chunks.open(sample.chunks).digest,
        "translations": lane.frames.digest,
    } | lane.models
    return RunInfo(
        sample=sample.name,
        profile=sample.settings.profile,
        note=_note(lane),
        inputs=[RunInput(shown_name(f.path), f.bytes, f.sha256) for f in sample.inputs],
        settings=shown_settings(sample.settings),
        versions={"virnucpro": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES},
        digests=digests,
        products=lane.recipes,
        telemetry={product: _makers(lane, product) for product in EMBEDDINGS},
    )


def _note(lane: Lane) -> str:
    """What must be said wherever the results are shown."""
    record = read_import(lane.sample.folder)
    notes = (lane.profile.profile.note if lane.profile.is_demo else "", record.note if record else "")
    return " ".join(filter(None, notes))


def frames_note(lane: Lane) -> str:
    """What must be said if the classifier was trained on other frames than those of the sample; "" if it was not."""
    used, trained = lane.sample.settings.open_length, lane.profile.min_open
    if used == trained:
        return ""
    remedy = "`virnucpro train --frames open` makes one for them." if used else "Give --frames open."
    return f"The classifier was trained on {frames_in_words(trained)}; here it scores {frames_in_words(used)}. {remedy}"


def _makers(lane: Lane, product: str) -> dict[str, Any]:
    """The devices that computed the product's shards. No times: equal input and devices give equal results folders."""
    makers = [e.maker for e in map(lane.store(product).entry, range(lane.n_shards)) if e is not None]
    return {"shards": len(makers), "devices": sorted({str(m["device"]) for m in makers})}


@contextlib.contextmanager
def _locked(sample: Sample, product: str) -> Iterator[None]:
    """Hold the product's lock. Disk errors inside the block become a StoreError that names the file."""
    busy = f"another process works on {product} of sample {sample.name!r}"
    with disk_errors(sample.product(product)):
        sweep(sample.folder)
        sweep(sample.results)
        with shared_lock(sample.folder), locked(sample.lock(product), busy=busy, wait=True):
            yield
