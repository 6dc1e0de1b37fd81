"""Chunks and frames by plain loops, letter by letter as the specification reads: what the fast code is held
to.

Also the slow side of `benchmarks/sequences.py`.
"""

from Bio.Data import CodonTable

_STANDARD = CodonTable.unambiguous_dna_by_id[1]
AMINO_ACIDS = dict(_STANDARD.forward_table) | dict.fromkeys(_STANDARD.stop_codons, "*")
COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A"}


def chunk_starts(length: int, size: int) -> list[int]:
    """Start of every chunk of a record."""
    count = -(-length // size)
    surplus = count * size - length
    low = surplus // count
    up = surplus - low * (count - 1)
    starts, overlaps = [0], 0
    for gap in range(count - 1):
        overlaps += low + 1 if gap < up else low
        starts.append((gap + 1) * size - overlaps)
    return starts


def translate(strand: str, frame: int) -> str:
    """Protein of one frame of one strand; codons with other letters than ACGT are skipped."""
    protein = []
    for i in range(frame, len(strand) - 2, 3):
        codon = strand[i : i + 3]
        if codon in AMINO_ACIDS:
            protein.append(AMINO_ACIDS[codon])
    return "".join(protein)


def frames(chunk: str) -> list[tuple[str, str, str]]:
    """The kept frames of a chunk: (name, nucleotide slice, protein)."""
    forward = chunk.upper()
    reverse = "".join(COMPLEMENT.get(letter, letter) for letter in reversed(forward))
    kept = []
    for side, strand in (("F", forward), ("R", reverse)):
        for frame in range(3):
            protein = translate(strand, frame)
            if protein and "*" not in protein:
                kept.append((f"{side}{frame + 1}", strand[frame : frame + 1 + 3 * len(protein)], protein))
    return kept


def open_frames(chunk: str, least: int) -> list[tuple[str, str, str]]:
    """The open frames of a chunk: (name, nucleotides, longest stretch); none beside a stop-free frame."""
    if frames(chunk):
        return []
    forward = chunk.upper()
    reverse = "".join(COMPLEMENT.get(letter, letter) for letter in reversed(forward))
    kept = []
    for side, strand in (("F", forward), ("R", reverse)):
        for frame in range(3):
            whole = translate(strand, frame)
            stretch = max(whole.split("*"), key=len)
            if len(stretch) >= least:
                kept.append((f"{side}{frame + 1}", strand[frame : frame + 1 + 3 * len(whole)], stretch))
    return kept
