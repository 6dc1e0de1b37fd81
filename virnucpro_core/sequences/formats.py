"""Which format a sequence file has: decided by its first bytes, never by its name."""

from pathlib import Path

from virnucpro_core.errors import EmptyFileError, InputError
from virnucpro_core.sequences.archives import first_bytes
from virnucpro_core.sequences.record import Format

GIVE = "give FASTA, FASTQ, BAM, CRAM or GenBank"
_HEAD_BYTES = 1 << 12
_SAM = "convert it with `samtools view -b`"
_FOREIGN = (
    (b"@HD\t", "SAM", _SAM),
    (b"@SQ\t", "SAM", _SAM),
    (b"@RG\t", "SAM", _SAM),
    (b"@PG\t", "SAM", _SAM),
    (b"##gff-version", "GFF", "give the sequences as FASTA"),
    (b"##fileformat=VCF", "VCF", "give the sequences as FASTA"),
)
_ALIGNED = (b"BAM\x01", b"CRAM")


def format_of(path: Path) -> Format:
    """The format of a file, also of a compressed one. Raises InputError if it has none of the known formats."""
    head = first_bytes(path, _HEAD_BYTES)
    if head.startswith(_ALIGNED):
        return "aligned"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"\0" in text:
        raise InputError("binary data, not text", path=path, remedy=f"{GIVE}; text must be UTF-8")
    if not text:
        raise EmptyFileError("the file is empty", path=path, remedy=GIVE)
    for start, name, remedy in _FOREIGN:
        if text.startswith(start):
            raise InputError(f"{name}, not FASTA or FASTQ", path=path, remedy=remedy)
    if text.startswith(b"LOCUS "):
        return "genbank"
    if text[:1] in (b">", b"#"):
        return "fasta"
    if text[:1] == b"@":
        return "fastq"
    what = "neither FASTA nor FASTQ: the first character is neither '>' nor '@'"
    raise InputError(what, path=path, line=1 + head[: len(head) - len(text)].count(b"\n"), remedy=GIVE)
