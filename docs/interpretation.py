"""Computes the tables of interpretation.md and draws its pictures: `python docs/interpretation.py`, about a minute.

How often a chunk or a record has no stop-free frame, and so no score: for random sequences, and for the genomes that
ship with the package. Cutting and translation are the package's own. No encoder is needed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from virnucpro_core.sequences.chunks import chunk_starts  # noqa: E402
from virnucpro_core.sequences.fasta import read_records  # noqa: E402
from virnucpro_core.sequences.translation import FRAMES, translate  # noqa: E402

PAGE = Path(__file__).parent / "interpretation.md"
IMAGES = Path(__file__).parent / "images"
DEMO = ROOT / "virnucpro_core" / "demo"
LENGTHS = (100, 150, 200, 250, 300, 400, 500)
GC = (0.3, 0.4, 0.5, 0.6, 0.7)
RECORDS = (300, 500, 1_000, 2_000, 3_000, 5_000)
SIZES = (300, 500)
LEASTS = (0, 20, 30, 40, 60, 80)  # amino acids of an open frame; 0: stop-free frames only
CHUNKS, PIECES = 20_000, 2_000
SEED = 20261128


def random_bases(n: int, gc: float, generator: np.random.Generator) -> bytes:
    """n independent bases, of which a share `gc` is G or C on average."""
    shares = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    return np.frombuffer(b"ACGT", np.uint8)[generator.choice(4, n, p=shares)].tobytes()


def has_frame(
    bases: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64], least: int = 0
) -> NDArray[np.bool_]:
    """Whether each chunk of `bases`, (n,) starts and lengths, has a stop-free frame; with `least`, or an open one."""
    found = np.zeros(len(starts), bool)
    found[translate(bases, starts, lengths, least).chunk] = True
    return found


def chunk_share(length: int, gc: float, chunks: int = CHUNKS) -> float:
    """Share of random chunks of `length` bases that have no stop-free frame."""
    generator = np.random.default_rng([SEED, length, round(100 * gc)])
    starts = np.arange(chunks, dtype=np.int64) * length
    found = has_frame(random_bases(chunks * length, gc, generator), starts, np.full(chunks, length))
    return float(1 - found.mean())


def expected_share(length: int, gc: float) -> float:
    """The same, as if the six frames were independent: (1 - (1 - p)^n)^6, p the chance of a stop, n codons."""
    at, half = (1 - gc) / 2, gc / 2
    stop = at**3 + 2 * at**2 * half
    share = 1.0
    for frame in range(3):
        share *= (1 - (1 - stop) ** ((length - frame) // 3)) ** 2
    return share


def record_share(length: int, gc: float, size: int, records: int = PIECES) -> float:
    """Share of random records of `length` bases without a call: none of their chunks has a stop-free frame."""
    generator = np.random.default_rng([SEED, length, round(100 * gc), size])
    starts = chunk_starts(length, size)
    where = (np.arange(records)[:, None] * length + starts).ravel()
    lengths = np.tile(np.minimum(length - starts, size), records)
    found = has_frame(random_bases(records * length, gc, generator), where, lengths)
    return float(1 - found.reshape(records, -1).any(axis=1).mean())


def genome_shares(file: str) -> Iterator[tuple[str, int, float, list[float]]]:
    """Id, length, GC, and for each of SIZES the share of chunks without a stop-free frame."""
    for record in read_records([DEMO / file]):
        letters = record.sequence.upper()
        gc = (letters.count(b"G") + letters.count(b"C")) / len(letters)
        shares = []
        for size in SIZES:
            starts = chunk_starts(len(letters), size)
            found = has_frame(letters, starts, np.minimum(len(letters) - starts, size))
            shares.append(float(1 - found.mean()))
        yield record.id, len(letters), gc, shares


def open_shares(file: str = "", size: int = 300) -> list[float]:
    """Share of chunks that have a score for each of LEASTS: of a shipped file, or of random bases (GC 50 %)."""
    generator = np.random.default_rng([SEED, size])
    records = [r.sequence for r in read_records([DEMO / file])] if file else []
    found: list[list[bool]] = [[] for _ in LEASTS]
    for letters in records or [random_bases(CHUNKS * size, 0.5, generator)]:
        starts = chunk_starts(len(letters), size)
        lengths = np.minimum(len(letters) - starts, size)
        for k, least in enumerate(LEASTS):
            found[k] += has_frame(letters, starts, lengths, least).tolist()
    return [float(np.mean(one)) for one in found]


def tables() -> dict[str, str]:
    """The tables of the page by the name of their place."""
    head = "| GC | " + " | ".join(f"{n} bases" for n in LENGTHS) + " |\n|---|" + "---:|" * len(LENGTHS) + "\n"
    chunks = head + "".join(
        f"| {gc:.0%} | " + " | ".join(f"{chunk_share(n, gc):.1%}" for n in LENGTHS) + " |\n" for gc in GC
    )
    records = (
        "| chunks of | GC | " + " | ".join(f"{n:,} bases" for n in RECORDS) + " |\n"
        "|---:|---|" + "---:|" * len(RECORDS) + "\n"
    )
    for size in SIZES:
        for gc in (0.4, 0.5, 0.6):
            cells = " | ".join(f"{record_share(n, gc, size):.1%}" for n in RECORDS)
            records += f"| {size} | {gc:.0%} | {cells} |\n"
    genomes = (
        "| record | label | bases | GC | chunks of 300 | chunks of 500 |\n|---|---|---:|---:|---:|---:|\n"
    )
    for label, file in (("virus", "viral.fa"), ("others", "non_viral.fa")):
        for name, bases, gc, shares in genome_shares(file):
            genomes += f"| {name} | {label} | {bases:,} | {gc:.0%} | {shares[0]:.1%} | {shares[1]:.1%} |\n"
    opened = (
        "| chunks of 300 bases | stop-free only | "
        + " | ".join(f"{n} amino acids" for n in LEASTS[1:])
        + " |\n"
    )
    opened += "|---|" + "---:|" * len(LEASTS) + "\n"
    for words, file in (
        ("random, GC 50%", ""),
        ("shipped, virus", "viral.fa"),
        ("shipped, others", "non_viral.fa"),
    ):
        opened += f"| {words} | " + " | ".join(f"{share:.1%}" for share in open_shares(file)) + " |\n"
    return {"chunks": chunks, "records": records, "genomes": genomes, "open": opened}


def page(text: str) -> str:
    """The page with the present tables in it."""
    for name, table in tables().items():
        text = re.sub(
            rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)",
            lambda match, new=table: match[1] + new + match[2],
            text,
            flags=re.DOTALL,
        )
    return text


def draw_curves() -> None:
    """The chance of no score over the chunk length, for each GC."""
    import matplotlib as mpl  # noqa: PLC0415 - only for the pictures

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(GC)))
    for gc, colour in zip(GC, colours, strict=True):
        lengths = np.arange(60, 505, 5)
        axes.plot(lengths, [expected_share(int(n), gc) for n in lengths], color=colour, label=f"GC {gc:.0%}")
        axes.plot(LENGTHS, [chunk_share(n, gc) for n in LENGTHS], "o", color=colour, markersize=4)
    axes.set(xlabel="bases in the chunk", ylabel="chunks without a score", ylim=(0, 1), xlim=(60, 505))
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2, loc="center right", bbox_to_anchor=(1.0, 0.2))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "no-score.png", dpi=160)
    plt.close(figure)


def draw_frames() -> None:
    """Three chunks of phage lambda, their six frames, and the stops in them."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    letters = next(read_records([DEMO / "viral.fa"])).sequence.upper()[:800]
    size, virus, others = 300, "#c2410c", "#2a6fb0"
    figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained")
    axes.add_patch(mpl.patches.Rectangle((0, 8.6), 800, 0.35, color="#566070"))
    axes.text(0, 9.15, "record: the first 800 bases of phage lambda", fontsize=9)
    for k, start in enumerate(chunk_starts(800, size).tolist()):
        n = min(size, 800 - start)
        x = start + k * 40  # drawn apart, although chunks overlap
        axes.add_patch(mpl.patches.Rectangle((x, 7.4), n, 0.4, color="#a3acb8"))
        axes.text(x, 7.95, f"chunk {k + 1}: bases {start + 1} to {start + n}", fontsize=8)
        kept = translate(letters, np.array([start]), np.array([n]))
        names = [FRAMES[code] for code in kept.code.tolist()]
        for row, name in enumerate(FRAMES):
            y = 6.6 - row
            is_kept = name in names
            colour = virus if is_kept else "#d9dee5"
            axes.add_patch(mpl.patches.Rectangle((x, y), n, 0.45, color=colour))
            for place in stops(letters[start : start + n], name):
                axes.plot([x + place], [y + 0.22], marker="x", color=others, markersize=5)
            if k == 0:
                axes.text(-14, y + 0.1, name, fontsize=8, ha="right")
    axes.text(0, 0.6, "orange: no stop, scored    grey: a stop (x), not scored", fontsize=9)
    axes.set(xlim=(-40, 900), ylim=(0.3, 9.6))
    axes.axis("off")
    figure.savefig(IMAGES / "frames.png", dpi=160)
    plt.close(figure)


def stops(letters: bytes, name: str) -> list[int]:
    """First bases, on the forward strand, of the stop codons in a frame of a chunk."""
    strand = letters if name[0] == "F" else letters.translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]
    first = int(name[1]) - 1
    found = [i for i in range(first, len(strand) - 2, 3) if strand[i : i + 3] in (b"TAA", b"TAG", b"TGA")]
    return [i if name[0] == "F" else len(strand) - 3 - i for i in found]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw_curves()
    draw_frames()
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} and two pictures\n")
