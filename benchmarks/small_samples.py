"""Many small samples against one of as many reads: `virnucpro predict FOLDER` and `virnucpro predict FILE`.

    python -m benchmarks.small_samples --samples 50 --reads 1000 --out benchmarks/results

Demo profile, one lane on the CPU, each command in an empty home, so both start Dagster, make the instance and load
the models. Run it on a quiet machine: other work changes both ratios.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measured import predict, write_reads
from benchmarks.record import finish, print_table, provenance


def main() -> None:
    """Measure both, print a table and a JSON line, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        for number in range(options.samples):
            write_reads(folder / "in" / f"s{number:04}.fa", options.reads, seed=number)
        texts = [file.read_text() for file in sorted((folder / "in").iterdir())]
        (folder / "one.fa").write_text(
            "".join(text.replace(">", f">{number}_") for number, text in enumerate(texts))
        )
        one = predict(folder / "home1", folder / "one.fa", "--out", folder / "out1")
        many = predict(folder / "home2", folder / "in", "--out", folder / "out2")
    named = (("one sample", 1, one), (f"{options.samples} samples", options.samples, many))
    rows = [
        {"what": what, "reads": options.samples * options.reads, "wall_s": cost.wall, "cpu_s": cost.cpu}
        for what, _, cost in named
    ]
    extra = (many.cpu - one.cpu) / max(1, options.samples - 1)
    result = provenance() | {
        "rows": rows,
        "ratio_wall": many.wall / one.wall,
        "ratio_cpu": many.cpu / one.cpu,
        "cpu_seconds_a_sample_more": extra,
    }
    print_table(rows)
    print(
        f"many / one: {result['ratio_wall']:.2f} by the clock, {result['ratio_cpu']:.2f} of all processors;"
        f" {extra:.2f} s of processor more a sample"
    )
    finish(result, options.out, f"small-samples-{options.samples}x{options.reads}")


if __name__ == "__main__":
    main()
