"""The tables of docs/interpretation.md are those that its program computes."""

import importlib.util
from types import ModuleType

import pytest

from tests.support import ROOT

TEXT = (ROOT / "docs" / "interpretation.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interpretation", ROOT / "docs" / "interpretation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_code(program: ModuleType) -> None:
    """Two rows by chance, cheap ones, and all shipped genomes."""
    chunks = " | ".join(f"{program.chunk_share(n, 0.5):.1%}" for n in program.LENGTHS)
    assert f"| 50% | {chunks} |\n" in TEXT
    records = " | ".join(f"{program.record_share(n, 0.6, 300):.1%}" for n in program.RECORDS)
    assert f"| 300 | 60% | {records} |\n" in TEXT
    for file in ("viral.fa", "non_viral.fa"):
        for name, _, _, shares in program.genome_shares(file):
            row = next(line for line in TEXT.splitlines() if line.startswith(f"| {name} |"))
            assert row.endswith(f" {shares[0]:.1%} | {shares[1]:.1%} |")


def test_shares_with_open_frames_are_those_of_the_code(program: ModuleType) -> None:
    shares = program.open_shares("viral.fa")
    assert f"| shipped, virus | {' | '.join(f'{share:.1%}' for share in shares)} |\n" in TEXT
    assert shares[1:] == sorted(shares[1:], reverse=True)
    assert min(shares) >= shares[0]


@pytest.mark.parametrize("gc", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("length", [100, 300])
def test_the_formula_is_close_to_what_is_counted(program: ModuleType, length: int, gc: float) -> None:
    """Frames are not independent, so the formula is only near; more than two points would be another formula."""
    assert program.chunk_share(length, gc, 5_000) == pytest.approx(
        program.expected_share(length, gc), abs=0.03
    )
