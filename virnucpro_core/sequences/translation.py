"""Six reading frames of many chunks at once: which are free of stops, their proteins and their nucleotides.

Knows the standard genetic code and the published tool's frames; does no reading and no writing. Every base of
both strands gets the number of the codon that starts there; stops and unreadable codons are found by
position, and only the frames that are kept, about one in ten of short reads, are translated, gathered by
index arithmetic.

Legend: P positions of both strands laid end to end (forward, then reverse complement), W windows of both
strands (forward ones, then the same in reverse), 3 the frames of a strand, K kept frames.
"""

from dataclasses import dataclass

import numpy as np
from Bio.Data import CodonTable

from virnucpro_core.files.columns import Array, Strings, spans

FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")


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
    digits = np.frombuffer(bases.translate(_DIGITS), np.uint8)
    codons_P = _both_strands(digits[:-2] * 25 + digits[1:-1] * 5 + digits[2:], n)
    starts_W = np.concatenate([starts, 2 * n - starts - lengths])
    lengths_W = np.concatenate([lengths, lengths])
    n_codons_W3 = np.maximum(lengths_W[:, None] - np.arange(3), 0) // 3
    n_residues_W3 = n_codons_W3 - _count(_unreadable(digits), starts_W, lengths_W)
    kept_W3 = (n_residues_W3 > 0) & (_count(_stops(codons_P), starts_W, lengths_W) == 0)

    chunk_K, code_K = np.nonzero(_by_chunk(kept_W3))
    window_K, frame_K = chunk_K + (code_K >= 3) * len(starts), code_K % 3
    first_K = starts_W[window_K] + frame_K
    n_residues_K = n_residues_W3[window_K, frame_K]
    codons = codons_P[_spans_of_3(first_K, n_codons_W3[window_K, frame_K])]
    proteins = np.frombuffer(codons.tobytes().translate(_AMINO_ACIDS, _UNREADABLE), np.uint8)
    n_bases_K = np.minimum(1 + 3 * n_residues_K, starts_W[window_K] + lengths_W[window_K] - first_K)
    letters = _both_strands(np.frombuffer(bases, np.uint8), n)[spans(first_K, n_bases_K)]
    nucleotides = np.frombuffer(letters.tobytes().translate(_LETTERS), np.uint8)
    return Translation(
        chunk_K,
        code_K.astype(np.uint8),
        Strings(proteins, _offsets(n_residues_K)),
        Strings(nucleotides, _offsets(n_bases_K)),
    )


def _both_strands(values: Array, n: int) -> Array:
    """What starts at each position of both strands of n bases, (2n,) uint8: reversed and with the high bit
    set on the reverse strand. Positions too near a strand's end to start anything are 0; no window reaches
    them."""
    both = np.zeros(2 * n, np.uint8)
    both[: len(values)] = values
    both[n : n + len(values)] = values[::-1] | _REVERSE
    return both


def _stops(codons_P: Array) -> Array:
    """(2n,) bool."""
    forward, reverse = np.split(codons_P, 2)
    return np.concatenate([_is_any(forward, _STOPS), _is_any(reverse, _REVERSE_STOPS)])


def _is_any(values: Array, wanted: list[int]) -> Array:
    found = np.zeros(len(values), np.bool_)
    for value in wanted:
        found |= values == value
    return found


def _unreadable(digits: Array) -> Array:
    """Where codons with a letter outside ACGT start, (2n,) bool; (0,) if there is none."""
    other = digits == _OTHER
    if not other.any():
        return np.empty(0, np.bool_)
    codons = other[:-2] | other[1:-1] | other[2:]
    found: Array = _both_strands(codons.view(np.uint8), len(digits)) % _REVERSE == 1
    return found


def _count(is_hit_P: Array, starts_W: Array, lengths_W: Array) -> Array:
    """How many codons of each frame of each window are hits: (W, 3) int64."""
    counts = np.zeros((len(starts_W), 3), np.int64)
    for phase in range(3):
        # Codons at positions phase, phase + 3, ... belong to frame (phase - start) mod 3 of a window.
        at = 3 * np.flatnonzero(is_hit_P[phase::3]) + phase
        low, high = np.searchsorted(at, starts_W), np.searchsorted(at, starts_W + lengths_W - 2)
        counts[np.arange(len(starts_W)), (phase - starts_W) % 3] = np.maximum(high - low, 0)
    return counts


def _by_chunk(values_W3: Array) -> Array:
    """(2n, 3) -> (n, 6), columns in the order of FRAMES."""
    return np.hstack(np.split(values_W3, 2))


def _spans_of_3(starts: Array, counts: Array) -> Array:
    """As `spans`, in steps of three."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - 3 * (ends - counts), counts) + 3 * np.arange(total)


def _offsets(lengths: Array) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _codon_tables() -> tuple[bytes, bytes, list[int], list[int]]:
    """By codon number (25 a + 5 b + c; plus 128 when it was read on the forward strand and lies on the
    reverse): amino acids; the numbers to drop; the numbers of stops on the forward strand and on the
    reverse."""
    code = CodonTable.unambiguous_dna_by_id[1]
    aminos = dict(code.forward_table) | dict.fromkeys(code.stop_codons, "*")
    table = bytearray(256)
    for codon, amino in aminos.items():
        a, b, c = ("ACGT".index(letter) for letter in codon)
        table[25 * a + 5 * b + c] = ord(amino)
        table[_REVERSE + 25 * (3 - c) + 5 * (3 - b) + (3 - a)] = ord(amino)
    stops = [number for number, amino in enumerate(table) if amino == ord("*")]
    unreadable = bytes(number for number, amino in enumerate(table) if not amino)
    return bytes(table), unreadable, [s for s in stops if s < _REVERSE], [s for s in stops if s >= _REVERSE]


def _digits() -> bytes:
    """Letter -> base-5 digit."""
    table = bytearray([_OTHER]) * 256
    for digit, letters in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
        for letter in letters:
            table[letter] = digit
    return bytes(table)


_OTHER = 4
_REVERSE = 0x80
_DIGITS = _digits()
_AMINO_ACIDS, _UNREADABLE, _STOPS, _REVERSE_STOPS = _codon_tables()
# Upper case; complemented where the high bit says reverse strand.
_UPPER = bytes(range(_REVERSE)).upper()
_LETTERS = _UPPER + _UPPER.translate(bytes.maketrans(b"ACGT", b"TGCA"))
