"""Compute the sha256 of a sample's input files and find other samples with the same bytes.

A scan of the inbox must be short, so it registers samples by file size and time only. The first step of the first run
calls `with_content`, which reads the files.
"""

from collections.abc import Sequence
from dataclasses import replace

from virnucpro_core.errors import InputError, StoreError
from virnucpro_core.samples.inputs import InputFile, equal_files, is_same_file, read_inputs
from virnucpro_core.samples.products import CHUNKS, is_current
from virnucpro_core.samples.sample import (
    Sample,
    make_index,
    open_sample,
    read_refusal,
    registering,
    same_content,
    write,
)
from virnucpro_core.sequences.chunks import Chunks


def with_content(sample: Sample) -> Sample:
    """Return the sample with the sha256 of its files. Files without a recorded sha256 are read now.

    Products of earlier bytes are deleted; their results move to `superseded/`. Raises InputError if a file is missing
    or changed; StoreError if a file cannot be read at this moment.
    """
    if sample.content:
        return sample
    known = replace(sample, inputs=read_inputs(sample.inputs))
    if same := equal_files(known.inputs):
        raise InputError(
            "two input files hold the same bytes", path=same[0].path, remedy="give each file once"
        )
    make_index(sample.home)
    with registering(known):
        noted = open_sample(sample.home, sample.name)
        if noted != sample or not _same_files(noted.inputs, sample.inputs):
            what = "the sample was given other files or settings just now"
            raise StoreError(what, where=sample.folder, remedy="run again")
        if noted.content:
            return noted
        busy = f"sample {sample.name!r} has changed files, and a process works on the earlier ones"
        return write(known, noted, busy, is_new=False)


def twins_of(sample: Sample) -> list[str]:
    """Names of other samples that hold the same bytes and were not refused, sorted."""
    names = (name for name in same_content(sample.home, sample.content) if name != sample.name)
    return [name for name in names if not read_refusal(open_sample(sample.home, name))]


def _same_files(some: Sequence[InputFile], others: Sequence[InputFile]) -> bool:
    return len(some) == len(others) and all(map(is_same_file, some, others))


def made_from(chunks: Chunks, sample: Sample) -> bool:
    """Whether the chunks were made from these inputs, with these settings, by this version of the algorithm."""
    settings = sample.settings
    return (
        is_current(chunks.attrs, CHUNKS)
        and chunks.attrs["chunk_size"] == settings.chunk_size
        and chunks.attrs["duplicates"] == settings.duplicates
        and chunks.reading == settings.reading
        and [f["sha256"] for f in chunks.attrs["files"]] == [f.sha256 for f in sample.inputs]
    )
