"""The examples: the notebook is executed, the sheet is read, the compose file agrees with the code."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import nbformat
import yaml

from tests.support import ROOT
from tests.support.documented import write_bam
from virnucpro_assets.cli.main import app
from virnucpro_core.samples.sheet import read_sheet
from virnucpro_core.samples.sheet_faults import SheetFaults

EXAMPLES = ROOT / "examples"
COMPOSE = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
OURS = ("web", "daemon")


def test_the_notebook_embeds_calls_and_plots(tmp_path: Path) -> None:
    """In a process of its own: a kernel leaves sockets behind, and here a warning is an error."""
    assert not any(cell.get("outputs") for cell in nbformat.read(EXAMPLES / "notebook.ipynb", 4).cells), (
        "keep outputs out of the repository"
    )
    done = tmp_path / "done.ipynb"
    execute = "from nbclient.cli import main; main()"
    command = [sys.executable, "-c", execute, str(EXAMPLES / "notebook.ipynb"), f"--output={done}"]
    own = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "MPLBACKEND": ""}
    ended = subprocess.run(
        command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    outputs = [o for cell in nbformat.read(done, 4).cells for o in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "5 records, 759 chunks, 383 frames without a stop" in printed
    assert re.search(r"NC_001416\.1 +48,502 bases  virus ", printed)
    assert [o for o in outputs if "image/png" in o.get("data", {})]
    table = outputs[-1]["data"]["text/plain"]
    assert [line.split()[3] for line in table.splitlines()[1:]] == ["virus"] * 3 + ["others"] * 2


def test_the_sheet_is_read_and_shown(tmp_path: Path) -> None:
    text = (EXAMPLES / "samples.csv").read_text()
    assert f"```csv\n{text}```" in (ROOT / "docs" / "examples.md").read_text()
    (tmp_path / "samples.csv").write_text(text)
    for name in re.findall(r"[\w/]+\.(?:fastq\.gz|fasta|bam)", text):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".bam":
            write_bam(file, "ACGT" * 400)
        elif file.suffix == ".gz":
            mate = re.findall(r"_R([12])", name)
            file.write_bytes(gzip.compress(f"@r {mate[0] if mate else 1}:N:0\nACGT\n+\nIIII\n".encode()))
        else:
            file.write_text(">contig\nACGT\n")
    faults = SheetFaults(tmp_path / "samples.csv")
    found = {sample.name: sample for sample in read_sheet(tmp_path / "samples.csv", faults)}
    faults.tell()
    assert list(found) == ["patient1", "water", "assembly", "leftover"]
    assert len(found["patient1"].files) == 4
    assert found["assembly"].settings == {"chunk_size": 500, "min_length": 1000}


def test_the_services_run_programs_that_exist_with_options_that_exist() -> None:
    assert list(COMPOSE["services"]) == ["postgres", *OURS]
    program, command, *options = COMPOSE["services"]["web"]["command"]
    assert (program, command) == ("virnucpro", "ui")
    context = click.Context(app.commands["ui"])
    values = app.commands["ui"].make_parser(context).parse_args(options)[0]
    assert values == {"no_daemon": True, "host": "0.0.0.0", "port": "3000"}
    unit = re.findall(
        r"^ExecStart=\S+/bin/(dagster-daemon .*)$", (ROOT / "docs/operations.md").read_text(), re.M
    )
    assert COMPOSE["services"]["daemon"]["command"] == shlex.split(unit[0])


def test_the_services_have_variables_that_the_code_reads() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    known = set(re.findall(r"^\|[^|]*\|[^|]*\| `([A-Z_]+)` \|", text, re.MULTILINE))
    for name in OURS:
        own = COMPOSE["services"][name]["environment"]
        assert set(own) <= known
        assert own == COMPOSE["services"]["web"]["environment"], "one installation, one set of variables"
    database = COMPOSE["services"]["postgres"]["environment"]
    address = own["VIRNUCPRO_POSTGRES_URL"]
    assert address.startswith(f"postgresql+psycopg2://{database['POSTGRES_USER']}:${{POSTGRES_PASSWORD:?")
    assert address.endswith(f"@postgres:5432/{database['POSTGRES_DB']}")


def test_the_instance_is_made_before_the_daemon_starts_and_nothing_is_open_to_others() -> None:
    services = COMPOSE["services"]
    assert services["web"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["daemon"]["depends_on"]["web"] == {"condition": "service_healthy"}
    assert all("healthcheck" in services[name] for name in ("postgres", "web"))
    assert [port for service in services.values() for port in service.get("ports", [])] == [
        "127.0.0.1:3000:3000"
    ]
    gpus = services["daemon"]["deploy"]["resources"]["reservations"]["devices"][0]["count"]
    assert services["daemon"]["environment"]["VIRNUCPRO_GPUS"] == str(gpus)
    named = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert {name for name in named if not name.startswith("/")} == set(COMPOSE["volumes"])


def test_the_image_is_that_of_the_dockerfile() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    environment: dict[str, Any] = COMPOSE["services"]["web"]["environment"]
    assert f"VIRNUCPRO_HOME={environment['VIRNUCPRO_HOME']}" in text
    assert "ARG EXTRAS=" in text
    assert COMPOSE["services"]["web"]["volumes"][0].split(":")[1] == environment["VIRNUCPRO_HOME"]
    assert (
        os.path.commonpath([environment["VIRNUCPRO_HOME"], environment["DAGSTER_HOME"]]) == "/srv/virnucpro"
    )
