"""Short pieces of the demo's genomes as labelled sequences: little to compute, but whole groups."""

from pathlib import Path

from virnucpro_core.models.profiles import DEMO
from virnucpro_core.sequences.fasta import read_records
from virnucpro_core.sequences.labelled import LabelledInput

MOST_BASES = 6_000
LABELS_TABLE = "id\tlabel\tgroup\n" + "".join(
    f"{record.id}\t{label}\t{'influenza' if record.id[0] in 'HKE' else record.id}\n"
    for label, name in (("virus", "viral.fa"), ("others", "non_viral.fa"))
    for record in read_records([DEMO / name])
)


def write_genomes(folder: Path, *, most: int = 99) -> LabelledInput:
    """The first bases of at most `most` genomes of each class, in `folder`/virus.fa and `folder`/others.fa."""
    for name, source in (("virus", "viral.fa"), ("others", "non_viral.fa")):
        records = list(read_records([DEMO / source]))[:most]
        text = "".join(f">{r.id}\n{r.sequence[:MOST_BASES].decode()}\n" for r in records)
        (folder / f"{name}.fa").write_text(text)
    return LabelledInput((folder / "virus.fa",), (folder / "others.fa",))
