"""What is released is gone but known, whenever the release is stopped; nothing else is ever taken."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from torture.pipeline import Pipeline, write_reads
from virnucpro_core.engine.shards import ShardStore
from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.files.locks import locked
from virnucpro_core.pipeline import retention
from virnucpro_core.pipeline.audit import audit_results
from virnucpro_core.pipeline.layers import EVERYTHING, open_layers
from virnucpro_core.pipeline.retention import (
    RELEASES,
    Keep,
    check_keep,
    is_due,
    releasable,
    release,
    released_entries,
)
from virnucpro_core.pipeline.steps import call_sample
from virnucpro_core.samples.products import DNABERT, ESM, MERGED, PREDICTIONS
from virnucpro_core.samples.sample import Sample, open_sample, register
from virnucpro_core.sequences.chunks import Chunks

SHARDED = (DNABERT, ESM, MERGED, PREDICTIONS)


class Killed(BaseException):
    """The process ends here: no handler of the code under test may hear it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one sample that has its results."""
    folder = tmp_path_factory.mktemp("whole")
    Pipeline(folder / "home", write_reads(folder / "reads.fa", records=40)).run()
    return folder


@pytest.fixture
def pipeline(whole: Path, tmp_path: Path) -> Pipeline:
    return copied(whole, tmp_path)


def copied(whole: Path, folder: Path) -> Pipeline:
    shutil.copytree(whole / "home", folder / "home")
    return Pipeline(folder / "home", whole / "reads.fa")


def known(pipeline: Pipeline) -> Sample:
    return open_sample(pipeline.home, "reads")


def results(sample: Sample) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sample.results.iterdir() if f.is_file()}


def tree(sample: Sample) -> dict[str, int]:
    return {
        str(f.relative_to(sample.folder)): f.stat().st_size
        for f in sample.folder.rglob("*")
        if f.is_file() and "locks" not in f.parts
    }


@contextmanager
def steps(monkeypatch: pytest.MonkeyPatch, kill_at: int = -1) -> Iterator[list[tuple[str, Path]]]:
    """Every rename, deletion and sync of a release, in order; number `kill_at` does not happen, nor any later one."""
    done: list[tuple[str, Path]] = []

    def watched(name: str, real: object) -> object:
        def step(path: Path, *arguments: object, **options: object) -> object:
            if len(done) == kill_at:
                raise Killed
            done.append((name, path))
            return real(path, *arguments, **options)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", watched("rename", Path.replace))
        patch.setattr(Path, "unlink", watched("delete", Path.unlink))
        patch.setattr(retention, "sync", watched("sync", retention.sync))
        yield done


@pytest.mark.parametrize("keep", ["scores", "results"])
def test_a_release_that_is_killed_anywhere_goes_on_and_nothing_looks_damaged(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> None:
    first = copied(whole, tmp_path / "undisturbed")
    before = results(known(first))
    with steps(monkeypatch) as done:
        release(known(first), keep)
    expected = tree(known(first))
    for at in range(len(done)):
        pipeline = copied(whole, tmp_path / f"{keep}{at}")
        sample = known(pipeline)
        with pytest.raises(Killed), steps(monkeypatch, at):
            release(sample, keep)
        for product in SHARDED:
            folder = sample.product(product)
            for entry in folder.glob("[0-9]*.json"):
                assert entry.with_suffix(".h5").exists(), (at, entry)
            for data in folder.glob("*.h5"):
                store = ShardStore(folder, dataset="", identity={})
                assert store.entry(int(data.stem)) or store.released(int(data.stem)), (at, data)
        assert results(sample) == before
        if at:  # the first thing that happens is the renaming of an entry
            assert open_layers(first.lane(sample, 0)) == ()
        release(sample, keep)
        assert tree(sample) == expected, at
        shutil.rmtree(tmp_path / f"{keep}{at}")


def test_data_go_only_after_their_renamed_entries_are_synced(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with steps(monkeypatch) as done:
        release(known(pipeline), "results")
    for i, (what, path) in enumerate(done):
        if what == "delete":
            earlier = [w for w, p in done[:i] if path.parent in (p, p.parent)]
            assert "sync" in earlier
            assert "rename" not in earlier[earlier.index("sync") :]


def test_what_was_released_is_told_and_the_digests_stay(pipeline: Pipeline) -> None:
    sample = known(pipeline)
    lane = pipeline.lane(sample, 1)
    store, ids = lane.store(ESM), {k: lane.ids(k) for k in lane.shards}
    entries = {k: store.entry(k) for k in lane.shards}
    expected = releasable(sample, "scores")
    assert release(sample, "scores") == expected
    assert set(expected.bytes) == {DNABERT, ESM, MERGED}
    assert expected.total > 10_000
    assert {store.state(k, ids[k]) for k in lane.shards} == {"released"}
    assert released_entries(sample, ESM, 1, 2) == entries
    with pytest.raises(StoreError, match="is released; materialize esm_embeddings again"):
        store.require(1, ids[1])
    assert releasable(sample, "scores").total == 0
    release(sample, "results")
    assert sorted(p.name for p in sample.chunks.iterdir()) == ["store.released"]
    with pytest.raises(StoreError, match="was released"):
        Chunks.open(sample.chunks)
    assert release(sample, "results").total == 0


def test_after_a_release_everything_can_be_computed_again_with_the_same_bytes(pipeline: Pipeline) -> None:
    before = pipeline.products()
    sample = known(pipeline)
    release(sample, "results")
    (sample.results / "contigs.tsv").unlink()
    assert open_layers(pipeline.lane(sample, 0)) == EVERYTHING
    with pytest.raises(StoreError, match="contigs"):
        release(sample, "results")
    pipeline.run()
    assert pipeline.products() == before
    assert not list(sample.folder.rglob("*.released"))
    assert open_layers(pipeline.lane(sample, 0)) == EVERYTHING  # which finds everything there


def test_another_cutoff_needs_the_scores_only_and_other_chunks_need_all(pipeline: Pipeline) -> None:
    release(known(pipeline), "scores")
    settings = pipeline.settings
    changed = register(pipeline.home, "reads", [pipeline.reads], replace(settings, cutoff=0.9))
    with pytest.raises(StoreError, match="other sequences or settings"):
        release(changed, "results")
    assert open_layers(pipeline.lane(changed, 0)) == ("results",)
    call_sample(pipeline.lane(changed, 0))
    assert open_layers(pipeline.lane(changed, 0)) == ()
    for name, value in (("chunk_size", 200), ("shard_rows", 3), ("overlong", "isolate")):
        other = register(pipeline.home, "reads", [pipeline.reads], replace(settings, **{name: value}))
        assert open_layers(pipeline.lane(other, 0)) == EVERYTHING, name


def test_results_of_an_older_version_are_written_again_from_the_scores(pipeline: Pipeline) -> None:
    sample = known(pipeline)
    release(sample, "scores")
    facts = json.loads((sample.results / "run.json").read_bytes())
    facts["products"]["consensus"]["version"] = "1"
    for name in ("regions.bed", "chunks.tsv"):
        del facts["files"][name]
        (sample.results / name).unlink()
    (sample.results / "run.json").write_text(json.dumps(facts))
    assert open_layers(pipeline.lane(sample, 0)) == ("results",)
    assert audit_results(sample).passed
    assert not release(sample, "scores").total  # they still count as the sample's results
    call_sample(pipeline.lane(sample, 0))
    assert open_layers(pipeline.lane(sample, 0)) == ()
    assert (sample.results / "regions.bed").exists()
    assert audit_results(sample).passed


@pytest.mark.parametrize("name", ["contigs.tsv", "chunks.tsv", "scores.bedgraph", "regions.bed"])
def test_a_table_that_lacks_a_row_is_found_even_if_its_digest_agrees(pipeline: Pipeline, name: str) -> None:
    sample = known(pipeline)
    assert audit_results(sample).passed
    file, run = sample.results / name, sample.results / "run.json"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    facts = json.loads(run.read_bytes())
    facts["files"][name]["sha256"] = sha256_file(file)
    run.write_text(json.dumps(facts))
    assert not audit_results(sample).passed


@pytest.mark.parametrize("lock", ["driver", "chunks", "dnabert_embeddings-5"])
def test_nothing_goes_while_a_process_works_on_the_sample(pipeline: Pipeline, lock: str) -> None:
    sample = known(pipeline)
    before = tree(sample)
    with (
        locked(sample.lock(lock), busy=""),
        pytest.raises(StoreError, match=r"was not cleaned.*\(process \d+ on .+\)"),
    ):
        release(sample, "results")
    assert tree(sample) == before


@pytest.mark.parametrize("damage", ["run.json", "viral.fasta", "report.html"])
def test_nothing_goes_without_complete_results(pipeline: Pipeline, damage: str) -> None:
    sample = known(pipeline)
    file = sample.results / damage
    for change in (lambda: file.write_bytes(file.read_bytes()[:-20]), file.unlink):
        change()
        before = tree(sample)
        with pytest.raises(StoreError, match=r"results"):
            release(sample, "results")
        assert tree(sample) == before


def test_a_policy_waits_for_its_days_and_ends_when_nothing_is_left(pipeline: Pipeline) -> None:
    sample = known(pipeline)
    assert not is_due(sample, "scores", 1.0)
    assert not is_due(sample, "all", 0.0)
    assert is_due(sample, "scores", 0.0)
    release(sample, "scores")
    assert not is_due(sample, "scores", 0.0)
    assert is_due(sample, "results", 0.0)
    with pytest.raises(UsageError, match="not a retention policy"):
        check_keep("nothing")
    assert [check_keep(name) for name in RELEASES] == list(RELEASES)


def test_a_backup_without_the_data_becomes_a_released_sample(pipeline: Pipeline) -> None:
    sample = known(pipeline)
    for data in [*sample.folder.rglob("*.h5"), *sample.folder.rglob("*.bin")]:
        data.unlink()
    assert open_layers(pipeline.lane(sample, 0)) == EVERYTHING
    assert is_due(sample, "results", 0.0)
    assert release(sample, "results").total == 0
    assert open_layers(pipeline.lane(sample, 0)) == ()
    assert not is_due(sample, "results", 0.0)
