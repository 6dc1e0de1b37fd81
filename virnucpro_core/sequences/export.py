"""Writes chunks and frames as the three FASTA files of the published tool, byte for byte the same."""

from collections.abc import Callable, Iterable
from pathlib import Path

from virnucpro_core.files.columns import Strings
from virnucpro_core.files.publish import no_check, publish_together
from virnucpro_core.sequences.chunks import Chunks
from virnucpro_core.sequences.frames import Frames

_WRAP = 60
_ROWS = 10_000


def exported_files(out: Path, name: str, chunk_size: int) -> list[Path]:
    """The files that `export_translations` writes for a sample of this name, with chunks of `chunk_size` bases."""
    names = (
        f"{name}_chunked{chunk_size}.fa",
        f"{name}_identified_nucleotide.fa",
        f"{name}_identified_protein.faa",
    )
    return [out / file for file in names]


def export_translations(
    chunks: Chunks, frames: Frames, out: Path, name: str, *, check: Callable[[], None] = no_check
) -> list[Path]:
    """Write `NAME_chunkedN.fa`, `NAME_identified_nucleotide.fa` and `NAME_identified_protein.faa` into `out`.

    check: called just before the files appear, all together. Returns their paths. Raises StoreError.
    """
    files = exported_files(out, name, chunks.chunk_size)
    texts = (
        _chunk_entries(chunks),
        _frame_entries(chunks, frames, frames.nucleotides),
        _frame_entries(chunks, frames, frames.proteins),
    )
    with publish_together(out, [file.name for file in files], check) as made:
        for file, entries in zip(files, texts, strict=True):
            with made[file.name].open("wb") as stream:
                stream.writelines(entries)
    return files


def _chunk_entries(chunks: Chunks) -> Iterable[bytes]:
    """One FASTA entry for each chunk, in lines of 60 letters; the case of the input is kept."""
    for lo, bases, starts, lengths in chunks.blocks(1 << 20):
        ids = chunks.chunk_ids(lo, lo + len(starts))
        for name, start, end in zip(ids, starts.tolist(), (starts + lengths).tolist(), strict=True):
            lines = [bases[at : min(at + _WRAP, end)] for at in range(start, end, _WRAP)]
            yield b">%b\n%b\n" % (name.encode(), b"\n".join(lines))


def _frame_entries(chunks: Chunks, frames: Frames, letters: Strings) -> Iterable[bytes]:
    """One FASTA entry for each frame without a stop, its letters in one line. The tool has no open frames."""
    for lo in range(0, frames.n_frames, _ROWS):
        hi = min(lo + _ROWS, frames.n_frames)
        ids, is_open = frames.frame_ids(lo, hi, chunks), frames.is_open(lo, hi).tolist()
        for name, text, leave in zip(ids, letters.take(frames.frame_unique[lo:hi]), is_open, strict=True):
            if not leave:
                yield b">%b\n%b\n" % (name.encode(), text)
