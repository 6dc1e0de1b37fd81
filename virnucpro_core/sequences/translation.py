"""Translates many chunks in all six reading frames and keeps the frames without a stop codon.

Uses the standard genetic code and the frames of the published tool. First every position of both strands gets the
number of the codon that starts there, and stops and unreadable codons are found. Then only the frames that are kept
(about one in ten for short reads) are translated, all at once with numpy. Reads and writes no file.

Open frames, which the published tool does not have: if none of a chunk's six frames is free of stops, each of the six
can stand for its longest stretch between two stops. Example: `MKV*AWLNRT*P` has the open frame `AWLNRT`. The protein
is the stretch; the nucleotides are those of the whole frame, as they would be without the stops.

Shapes: P positions of both strands one after the other (forward, then reverse complement), W windows of both strands
(all forward, then all reverse), 3 frames of a strand, K kept frames, C codons of these frames, S stretches of them.
"""

from dataclasses import dataclass

import numpy as np
from Bio.Data import CodonTable

from virnucpro_core.files.columns import Array, Strings, spans

FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")


@dataclass(frozen=True, slots=True)
class Translation:
    """The kept frames of a block, in frame order (chunk by chunk; F1, F2, F3, R1, R2, R3 within a chunk).

    `chunk` (K,) int64 is the index of the window in the block. `code` (K,) uint8 is an index into FRAMES. `is_open`
    (K,) bool says which are open frames. `proteins` and `nucleotides` have K strings each.
    """

    chunk: Array
    code: Array
    is_open: Array
    proteins: Strings
    nucleotides: Strings


def translate(bases: bytes, starts: Array, lengths: Array, min_open: int = 0) -> Translation:
    """The kept frames of the windows `bases[starts[i]:starts[i] + lengths[i]]`; windows may overlap.

    `starts`, `lengths` (n,) int64. A frame is kept if its protein is not empty and has no stop. Codons with a letter
    other than ACGT are skipped: they add no amino acid to the protein. The nucleotides of frame f are
    `s[f:f + 1 + 3 * len(protein)]` of the strand s: one base more than the codons, if the strand has one.

    min_open: if it is not 0, a window without such a frame has open frames: of each of its six frames the longest
    stretch without a stop, the first of several, if it has at least `min_open` amino acids. The nucleotides are
    `s[f:f + 1 + 3 * n]` with n the number of the frame's codons, stops included.
    """
    n = len(bases)
    digits = np.frombuffer(bases.translate(_DIGITS), np.uint8)
    codons_P = _both_strands(digits[:-2] * 25 + digits[1:-1] * 5 + digits[2:], n)
    starts_W = np.concatenate([starts, 2 * n - starts - lengths])
    lengths_W = np.concatenate([lengths, lengths])
    n_codons_W3 = np.maximum(lengths_W[:, None] - np.arange(3), 0) // 3
    n_residues_W3 = n_codons_W3 - _count(_unreadable(digits), starts_W, lengths_W)
    kept_C6 = _by_chunk((n_residues_W3 > 0) & (_count(_stops(codons_P), starts_W, lengths_W) == 0))
    is_open_C: Array = np.zeros(len(starts), np.bool_)
    if min_open:
        is_open_C |= ~kept_C6.any(axis=1)
        kept_C6 |= is_open_C[:, None] & (_by_chunk(n_residues_W3) >= min_open)

    chunk_K, code_K = np.nonzero(kept_C6)
    window_K, frame_K = chunk_K + (code_K >= 3) * len(starts), code_K % 3
    first_K = starts_W[window_K] + frame_K
    n_residues_K = n_residues_W3[window_K, frame_K]
    n_codons_K = n_codons_W3[window_K, frame_K]
    codons = codons_P[_spans_of_3(first_K, n_codons_K)]
    n_bases_K = np.minimum(1 + 3 * n_residues_K, starts_W[window_K] + lengths_W[window_K] - first_K)
    if min_open:
        n_residues_K, codons = _longest(codons, n_codons_K)
        good_K = ~is_open_C[chunk_K] | (n_residues_K >= min_open)
        codons = codons[np.repeat(good_K, n_residues_K)]
        columns = (chunk_K, code_K, first_K, n_residues_K, n_bases_K)
        chunk_K, code_K, first_K, n_residues_K, n_bases_K = (column[good_K] for column in columns)
    proteins = np.frombuffer(codons.tobytes().translate(_AMINO_ACIDS, _UNREADABLE), np.uint8)
    letters = _both_strands(np.frombuffer(bases, np.uint8), n)[spans(first_K, n_bases_K)]
    nucleotides = np.frombuffer(letters.tobytes().translate(_LETTERS), np.uint8)
    return Translation(
        chunk_K,
        code_K.astype(np.uint8),
        is_open_C[chunk_K],
        Strings(proteins, _offsets(n_residues_K)),
        Strings(nucleotides, _offsets(n_bases_K)),
    )


def _longest(codons_C: Array, n_codons_K: Array) -> tuple[Array, Array]:
    """Amino acids (K,) of the longest stretch of each frame, and the codons of these stretches, frame by frame.

    codons_C: the codons of all frames, one after the other, of which each has at least one. A stretch ends with a stop
    or with its frame; codons that cannot be read add nothing to its length, and are left out.
    """
    if not len(codons_C):
        return np.zeros(len(n_codons_K), np.int64), codons_C
    letters_C = _LETTERS_OF_CODONS[codons_C]
    is_stop_C, is_amino_C = letters_C == ord("*"), (letters_C != 0) & (letters_C != ord("*"))
    is_first_C = np.zeros(len(codons_C), np.bool_)
    is_first_C[1:] = is_stop_C[:-1]
    frames = np.cumsum(n_codons_K) - n_codons_K
    is_first_C[frames] = True
    stretch_C = np.cumsum(is_first_C) - 1
    length_S = np.bincount(stretch_C[is_amino_C], minlength=int(stretch_C[-1]) + 1)
    longest_K = np.maximum.reduceat(length_S, stretch_C[frames])
    frame_S = np.repeat(np.arange(len(frames)), n_codons_K)[is_first_C]
    longest_S = np.flatnonzero(length_S == longest_K[frame_S])
    chosen_S = np.zeros(len(length_S), np.bool_)
    chosen_S[longest_S[np.unique(frame_S[longest_S], return_index=True)[1]]] = True
    return longest_K, codons_C[chosen_S[stretch_C] & is_amino_C]


def _both_strands(values: Array, n: int) -> Array:
    """`values` on both strands of n bases, (2n,) uint8. On the reverse strand: in reverse order, with the high bit set.

    `values` has one entry for each position at which something starts. The last positions of a strand, which have
    none, are 0; no window uses them.
    """
    both = np.zeros(2 * n, np.uint8)
    both[: len(values)] = values
    both[n : n + len(values)] = values[::-1] | _REVERSE
    return both


def _stops(codons_P: Array) -> Array:
    """Where stop codons start, (2n,) bool."""
    forward, reverse = np.split(codons_P, 2)
    return np.concatenate([_is_any(forward, _STOPS), _is_any(reverse, _REVERSE_STOPS)])


def _is_any(values: Array, wanted: list[int]) -> Array:
    found = np.zeros(len(values), np.bool_)
    for value in wanted:
        found |= values == value
    return found


def _unreadable(digits: Array) -> Array:
    """Where codons with a letter other than ACGT start, (2n,) bool; (0,) if there is none."""
    other = digits == _OTHER
    if not other.any():
        return np.empty(0, np.bool_)
    codons = other[:-2] | other[1:-1] | other[2:]
    found: Array = _both_strands(codons.view(np.uint8), len(digits)) % _REVERSE == 1
    return found


def _count(is_hit_P: Array, starts_W: Array, lengths_W: Array) -> Array:
    """Number of hits among the codons of each frame of each window, (W, 3) int64."""
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
    """As `spans`, but in steps of three: `arange(s, s + 3 * n, 3)`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - 3 * (ends - counts), counts) + 3 * np.arange(total)


def _offsets(lengths: Array) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _codon_tables() -> tuple[bytes, bytes, list[int], list[int]]:
    """Tables by codon number: amino acids; numbers to drop; numbers of stops on the forward and on the reverse strand.

    The number of a codon is 25 a + 5 b + c, for the digits of its bases. A codon of the reverse strand has the number
    of its bases as they are on the forward strand, plus 128.
    """
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
_LETTERS_OF_CODONS = np.frombuffer(_AMINO_ACIDS, np.uint8)  # 0 for a codon that cannot be read
# Letters in upper case; complemented if the high bit marks the reverse strand.
_UPPER = bytes(range(_REVERSE)).upper()
_LETTERS = _UPPER + _UPPER.translate(bytes.maketrans(b"ACGT", b"TGCA"))
