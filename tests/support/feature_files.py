"""Feature files as the published tool and its fork write them, made from the golden vectors."""

import zipfile
from pathlib import Path

import torch

from virnucpro_core.models.golden import Golden


def flip_a_byte(file: Path) -> str:
    """Change one byte in the middle of the largest entry of an archive of torch.save. Returns the entry's name."""
    with zipfile.ZipFile(file) as archive:
        entry = max(archive.infolist(), key=lambda one: one.file_size)
    data = bytearray(file.read_bytes())
    start = (
        entry.header_offset
        + 30
        + sum(
            int.from_bytes(data[entry.header_offset + at : entry.header_offset + at + 2], "little")
            for at in (26, 28)
        )
    )
    data[start + entry.file_size // 2] ^= 1
    file.write_bytes(data)
    return entry.filename


def write_published(golden: Golden, home: Path, *, name: str = "reads", per_file: int = 3) -> list[Path]:
    """`NAME_nucleotide`, `NAME_protein` and `NAME_merged` with the frames' FASTA files beside the features."""
    folders = [home / f"{name}_{what}" for what in ("nucleotide", "protein", "merged")]
    for folder in folders:
        folder.mkdir(parents=True)
    nucleotide, protein, merged = folders
    for number, lo in enumerate(range(0, len(golden.ids), per_file), 1):
        rows = range(lo, min(lo + per_file, len(golden.ids)))
        ids = [golden.ids[i] for i in rows]
        for folder, letters in ((nucleotide, golden.nucleotides), (protein, golden.proteins)):
            text = "".join(f">{golden.ids[i]}\n{letters[i]}\n" for i in rows)
            (folder / f"output_{number}.fa").write_text(text)
        dnabert = [torch.tensor(golden.vectors["dnabert-s"][i]) for i in rows]
        esm2 = [torch.tensor(golden.vectors["esm2"][i]) for i in rows]
        listed = [{"label": i, "mean_representation": v.tolist()} for i, v in zip(ids, dnabert, strict=True)]
        torch.save({"nucleotide": ids, "data": listed}, nucleotide / f"output_{number}_DNABERT_S.pt")
        torch.save({"proteins": ids, "data": esm2}, protein / f"output_{number}_ESM.pt")
        rows_ND = torch.stack([torch.cat(pair) for pair in zip(dnabert, esm2, strict=True)])
        torch.save({"ids": ids, "data": rows_ND}, merged / f"output_{number}_merged.pt")
    return folders
