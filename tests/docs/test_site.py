"""The documentation site: built strictly, whole without the network, with every page and every public name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import virnucpro_core
from tests.support import ROOT

RESULTS = ROOT / "benchmarks" / "results"
HARDWARE = (ROOT / "docs" / "hardware.md").read_text()
H100 = "nvidia-h100-80gb-hbm3"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_every_page_is_reached_from_the_first_one(site: Path) -> None:
    index = (site / "index.html").read_text()
    pages = {str(page.relative_to(site)) for page in site.rglob("*.html")} - {"404.html"}
    assert len(pages) > 25
    decisions = (site / "decisions" / "index.html").read_text()
    for page in pages - {"index.html"}:
        if page.startswith("files/"):
            assert f'href="{page}"' in (site / "workflows.html").read_text(), page
        elif re.match(r"decisions/0", page):
            assert f'href="{Path(page).name}"' in decisions
        else:
            assert f'href="{page}"' in index, page


def test_nothing_is_fetched_from_other_sites(site: Path) -> None:
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(https?:[^\s\">]+)", text)
        loaded += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|icon|preconnect|preload)[^>]*href=\"?(https?:[^\s\">]+)", text
        )
        loaded += re.findall(r"(?:url\(|@import )[\"']?(https?:[^\s\"')]+)", text)
        assert not loaded, page


def test_files_of_the_repository_that_pages_link_to_are_part_of_the_site(site: Path) -> None:
    for name in ("deploy/slurm/predict.sbatch", "examples/compose.yaml", "examples/notebook.ipynb"):
        assert (site / "files" / name).read_bytes() == (ROOT / name).read_bytes()


def test_lists_and_tables_that_follow_a_line_of_text_are_lists_and_tables(site: Path) -> None:
    """MkDocs wants an empty line before them, GitHub does not."""
    for page in site.rglob("*.html"):
        text = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", page.read_text(), flags=re.DOTALL)
        assert not re.findall(r"^(?:- \*\*|- <|\| ?[-:]{3}).*", text, re.MULTILINE), page


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text()
    for name in virnucpro_core.__all__:
        if name != "__version__":
            assert re.search(rf'id="virnucpro_core[\w.]*\.{name}"', text), name


def _rows(name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return rows


def test_figures_of_the_hardware_page_are_those_of_the_results() -> None:
    rows = _rows(f"encoders-{H100}") + _rows(f"encoders-esm2-3b-{H100}")

    def short(model: str, what: str, figure: str) -> float:
        found = [
            r[figure]
            for r in rows
            if (r.get("model"), r.get("what"), r.get("workload")) == (model, what, "short")
        ]
        return float(str(found[0]))

    for model, name in (("esm2-3b", "ESM-2 3B"), ("esm2-650m", "ESM-2 650M"), ("dnabert-s", "DNABERT-S")):
        for precision in ("float16", "fp8"):
            if (model, precision) == ("dnabert-s", "fp8"):
                continue
            peak = short(model, f"ours, {precision}", "peak_gib")
            assert re.search(
                rf"^\| {name} \| {precision} \| [\d,]+ \| {peak:.1f} GiB \|", HARDWARE, re.MULTILINE
            )
            assert f"{short(model, f'ours, {precision}', 'tokens_s'):,.0f}" in HARDWARE
    fp8 = (f"fp8-1-{H100}", "fp8-1-nvidia-h200", "fp8-2-nvidia-h200", "fp8-4-nvidia-h200")
    for name in (*fp8, "float16-1-nvidia-h200"):
        whole = _rows(f"end-to-end-esm2-3b-{name}")[0]
        seconds, records = float(str(whole["whole_s"])), int(str(whole["records"]))
        assert f"| {seconds:.0f} s | {seconds / records * 1e6 / 60:.1f} min |" in HARDWARE
    one = _rows("small-samples-80x1000-nvidia-h200")[0]
    wall, reads = float(str(one["wall_s"])), int(str(one["reads"]))
    assert f"| {wall:.0f} s | {wall / reads * 1e6 / 60:.0f} min |" in HARDWARE
    for precision, product, name in (
        ("float16", "esm2", "ESM-2 3B | float16"),
        ("fp8", "esm2", "ESM-2 3B | fp8"),
        ("dnabert-s-float16", "dnabert-s", "DNABERT-S | float16"),
    ):
        encoders = json.loads((RESULTS / f"pipeline-{precision}-{H100}.json").read_text())["encoders"]
        memory = next(e["gpu_memory"] for e in encoders if product in (e.get("product"), e.get("model")))
        line = next(row for row in HARDWARE.splitlines() if row.startswith(f"| {name} |"))
        assert line.endswith(f"| {memory / 1e9:.1f} GB |")
