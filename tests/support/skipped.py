"""Which tests were skipped, why, and what installs what they lack: the last lines of a test run."""

from collections import Counter
from collections.abc import Iterable, Iterator

# Part of a reason -> what to do about it. The first that fits is shown.
REMEDIES = {
    "CUDA device": "run `pytest -m gpu` on a machine with an NVIDIA GPU",
    "fp8 units": "run `pytest -m gpu` on a Hopper or Ada GPU",
    "flash-attn": "pip install 'virnucpro[flash-attn]', on a machine with an NVIDIA GPU",
    "flash_attn": "pip install 'virnucpro[flash-attn]', on a machine with an NVIDIA GPU",
    "compiled kernels": "nothing to install: on this machine `pytest -m gpu` checks them",
    "triton": "pip install 'triton>=3.9' (`make test` does it on Linux x86_64)",
    "postgresql": "apt install postgresql; pip install 'virnucpro[postgres]'",
    "gffutils": "pip install 'virnucpro[dev]'",
    "multiqc": "pip install 'virnucpro[dev]'",
    "Chromium": "apt install chromium",
    "playwright": "pip install 'virnucpro[dev]' (`make test` does it)",
    "dagster-k8s": "make ray",
    "Ray is not installed": "make ray",
    "start a Slurm of our own": "as root: apt install slurm-wlm munge; make slurm",
    "network namespaces": "run as root, or allow unprivileged user namespaces; apt install iproute2 util-linux",
    "C compiler": "apt install gcc libc6-dev",
    "pysam is not installed": "pip install 'virnucpro[dev]' (`make test` does it)",
    "samtools": "apt install samtools",
    "groovy is not installed": "apt install groovy",
    "Snakemake is not installed": "pip install snakemake, in an environment of its own (`make test` does it)",
    "golden files": "nothing to install: they are not published with the repository",
    "no git checkout": "clone the repository: a source archive does not say which files belong to it",
    "nothing in the file tells": "nothing to install: this combination cannot be tested",
    "cut before the empty line": "nothing to install: this combination cannot be tested",
}
UNKNOWN = "no remedy is known: see the test"


def remedy_of(reason: str) -> str:
    """What makes a test run that was skipped for `reason`."""
    return next((remedy for part, remedy in REMEDIES.items() if part in reason), UNKNOWN)


def skipped_lines(skips: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Lines for (test file, reason) of each skipped test: one reason a line, most frequent first."""
    counted = Counter((reason.removeprefix("Skipped: "), file) for file, reason in skips)
    by_reason: dict[str, dict[str, int]] = {}
    for (reason, file), n in counted.items():
        by_reason.setdefault(reason, {})[file] = n
    for reason, files in sorted(by_reason.items(), key=lambda item: (-sum(item[1].values()), item[0])):
        yield f"{sum(files.values()):4} skipped: {reason}"
        yield f"     in {', '.join(sorted(files))}"
        yield f"     to run them: {remedy_of(reason)}"
