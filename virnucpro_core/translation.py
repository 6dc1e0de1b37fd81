"""Six reading frames of many chunks at once: which are free of stops, their proteins and their nucleotides.

Knows the standard genetic code and the published tool's frames; does no reading and no writing. The amino
acid of the codon at every base is looked up once per strand, stops and unreadable codons are few and are
handled by position, and the frames that are kept are gathered by index arithmetic.

Legend: P positions of both strands laid end to end (forward, then reverse complement), W windows of both
strands (forward ones, then the same in reverse), K kept frames.
"""

from dataclasses import dataclass

import numpy as np
from Bio.Data import CodonTable

from virnucpro_core.columns import Array, Strings, spans

FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")

_SKIP = 0
_STOP = ord("*")


@dataclass(frozen=True, slots=True)
class Translation:
    """The kept frames of a block, in frame order (chunk by chunk; F1, F2, F3, R1, R2, R3 within a chunk).

    `chunk` (k,) int64 index of the window in the block; `code` (k,) uint8, an index into FRAMES; `proteins`
    and `nucleotides` k strings each.
    """

    chunk: Array
    code: Array
    proteins: Strings
    nucleotides: Strings


def translate(bases: bytes, starts: Array, lengths: Array) -> Translation:
    """Frames of the windows `bases[starts[i]:starts[i] + lengths[i]]`; windows may overlap.

    `starts`, `lengths` (n,) int64. A frame is kept if its protein is non-empty and has no stop anywhere;
    codons with a letter outside ACGT are skipped, so that the protein closes up. The nucleotide slice of
    frame f is `s[f:f + 1 + 3 * len(protein)]` of the strand s: one base more than the codons, where there is
    one.
    """
    n = len(bases)
    amino_P = _amino_acids(bases)
    starts_W = np.concatenate([starts, 2 * n - starts - lengths])
    lengths_W = np.concatenate([lengths, lengths])
    stopped_W3 = _hits(amino_P, _STOP, starts_W, lengths_W) > 0
    codons_W3 = np.maximum(lengths_W[:, None] - np.arange(3), 0) // 3
    kept = ~stopped_W3 & (codons_W3 > 0)
    skips_W3 = _hits(amino_P, _SKIP, starts_W, lengths_W)
    kept &= codons_W3 > skips_W3

    # (strand, chunk, f) -> (chunk, strand, f): the order of FRAMES.
    chunk_K, code_K = np.nonzero(_by_chunk(kept))
    first_K = np.take(starts_W, chunk_K + (code_K >= 3) * len(starts)) + code_K % 3
    codons_K = _by_chunk(codons_W3)[chunk_K, code_K]
    residues_K = codons_K - _by_chunk(skips_W3)[chunk_K, code_K]
    proteins = amino_P[_codon_starts(first_K, codons_K)]
    if len(proteins) != residues_K.sum():
        proteins = proteins[proteins != _SKIP]
    ends_K = np.take(starts_W + lengths_W, chunk_K + (code_K >= 3) * len(starts))
    slices_K = np.minimum(1 + 3 * residues_K, ends_K - first_K)
    nucleotides = _strands(bases)[spans(first_K, slices_K)] if len(first_K) else proteins
    return Translation(
        chunk_K, code_K.astype(np.uint8), _strings(proteins, residues_K), _strings(nucleotides, slices_K)
    )


def _hits(amino_P: Array, what: int, starts_W: Array, lengths_W: Array) -> Array:
    """How many codons of each window and frame are `what`: (W, 3) int64."""
    at = np.flatnonzero(amino_P == what)
    low = np.searchsorted(at, starts_W)
    high = np.maximum(np.searchsorted(at, starts_W + lengths_W - 2), low)
    hits = high - low
    window = np.repeat(np.arange(len(hits)), hits)
    frame = (at[spans(low, hits)] - starts_W[window]) % 3
    return np.bincount(3 * window + frame, minlength=3 * len(hits)).reshape(-1, 3)


def _by_chunk(values_W3: Array) -> Array:
    """(2n, 3) -> (n, 6), columns in the order of FRAMES."""
    return np.hstack(np.split(values_W3, 2))


def _codon_starts(first_K: Array, codons_K: Array) -> Array:
    """Positions of the codons of all kept frames one after the other."""
    ends = np.cumsum(codons_K)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(first_K - 3 * (ends - codons_K), codons_K) + 3 * np.arange(total)


def _strings(flat: Array, lengths: Array) -> Strings:
    return Strings(flat, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def _amino_acids(bases: bytes) -> Array:
    """The amino acid of the codon that starts at each position of both strands, (2n,) uint8; 0 where
    unreadable.

    The last two positions of a strand start no codon; no window reaches them.
    """
    digits = np.frombuffer(bases.translate(_DIGITS), np.uint8)
    n = len(digits)
    codons = np.full(n, _UNREADABLE, np.uint8)
    codons[: n - 2] = digits[:-2] * 25 + digits[1:-1] * 5 + digits[2:]
    amino = np.zeros(2 * n, np.uint8)
    amino[:n] = np.frombuffer(codons.tobytes().translate(_FORWARD), np.uint8)
    # The reverse strand's codon at q covers forward positions n - 3 - q to n - 1 - q.
    amino[n : 2 * n - 2] = np.frombuffer(codons[: n - 2].tobytes().translate(_REVERSE), np.uint8)[::-1]
    return amino


def _strands(bases: bytes) -> Array:
    """Both strands, upper case; only A, C, G and T are complemented."""
    upper = bases.upper()
    return np.frombuffer(upper + upper.translate(_COMPLEMENT)[::-1], np.uint8)


def _tables() -> tuple[bytes, bytes, bytes]:
    """Translation tables: letter -> base-5 digit (4 for any letter outside ACGT), codon number -> amino acid
    on the forward strand, and on the reverse."""
    letters = "ACGT"
    digits = bytearray([4]) * 256
    for digit, letter in enumerate(letters):
        digits[ord(letter)] = digits[ord(letter.lower())] = digit
    code = CodonTable.unambiguous_dna_by_id[1]
    forward, reverse = bytearray(256), bytearray(256)
    for codon in (a + b + c for a in letters for b in letters for c in letters):
        amino = ord("*" if codon in code.stop_codons else code.forward_table[codon])
        a, b, c = (letters.index(letter) for letter in codon)
        forward[25 * a + 5 * b + c] = amino
        reverse[25 * (3 - c) + 5 * (3 - b) + (3 - a)] = amino
    return bytes(digits), bytes(forward), bytes(reverse)


_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
_UNREADABLE = 124
_DIGITS, _FORWARD, _REVERSE = _tables()
