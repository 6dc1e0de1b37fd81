"""Verify every byte of a sample: its inputs, all products and its results. Slower than the checks of the graph."""

from collections.abc import Iterator

from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.digests import sha256_once
from virnucpro_core.pipeline.audit import SAMPLE_AUDITS, Finding, audit_lane, audit_results
from virnucpro_core.pipeline.lane import Lane
from virnucpro_core.pipeline.retention import was_released
from virnucpro_core.results.folder import RUN
from virnucpro_core.samples.products import CONSENSUS, SHARDED
from virnucpro_core.samples.sample import Sample

INPUTS = "inputs"


def verify_sample(lane: Lane) -> Iterator[tuple[str, Finding]]:
    """Yield (product, finding) for the inputs and every product, in the order in which they are made.

    lane: the only lane of a world of one, so that it has all shards of the sample. Reads every file and every row.
    A product that was released or is not there yet is reported as such and passes.
    """
    sample = lane.sample
    yield INPUTS, _inputs(sample)
    for product in (*SAMPLE_AUDITS, *SHARDED, CONSENSUS):
        folder = sample.results / RUN if product == CONSENSUS else sample.product(product)
        if product != CONSENSUS and was_released(sample, product):
            yield product, _note("released: the data was deleted when the results were complete")
        elif not folder.exists():
            yield product, _note("not there yet")
        else:
            yield from ((product, finding) for finding in _findings(lane, product))


def _findings(lane: Lane, product: str) -> list[Finding]:
    try:
        if product in SAMPLE_AUDITS:
            return SAMPLE_AUDITS[product](lane.sample)
        if product == CONSENSUS:
            return [audit_results(lane.sample)]
        return audit_lane(lane, product, values=True)
    except VirnucproError as error:
        return [Finding("can_be_read", passed=False, what=str(error), facts={})]


def _inputs(sample: Sample) -> Finding:
    """Whether the input files still have the sha256 of the registration. They are not needed once chunks are there."""
    changed, absent = [], []
    for file in sample.inputs:
        try:
            if file.sha256 and sha256_once(file.path) != file.sha256:
                changed.append(str(file.path))
        except OSError:
            absent.append(str(file.path))
    what = "the files have the sha256 of the registration"
    if absent:
        what = f"{len(absent)} of {len(sample.inputs)} files cannot be read any more ({absent[0]})"
    if changed:
        what = f"{len(changed)} of {len(sample.inputs)} files have changed ({changed[0]})"
    return Finding("digests_verify", not changed, what, {"files": len(sample.inputs)})


def _note(what: str) -> Finding:
    return Finding("", passed=True, what=what, facts={})
