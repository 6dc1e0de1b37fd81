"""Write the files from which MultiQC makes its section on VirNucPro, for one sample or for several.

MultiQC finds custom content by the end of a file's name, `_mqc.json`, and joins files of the same `id`: so
each sample's results folder has its own two files, and `multiqc FOLDER` shows all of them in one plot and in the
general statistics.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virnucpro_core.files.publish import json_text, publish_together
from virnucpro_core.results.record_calls import CALLS

CALLS_FILE = "virnucpro_calls_mqc.json"
GENERAL_FILE = "virnucpro_general_mqc.json"
MULTIQC_FILES = (CALLS_FILE, GENERAL_FILE)

_CALLS_SECTION: dict[str, Any] = {
    "id": "virnucpro_calls",
    "parent_id": "virnucpro",
    "parent_name": "VirNucPro",
    "parent_description": "calls each read or contig as virus or others.",
    "section_name": "Calls",
    "description": "Records called virus, called others, and records that got no call.",
    "plot_type": "bargraph",
    "pconfig": {"id": "virnucpro_calls_plot", "title": "VirNucPro: Calls", "ylab": "Records"},
    "categories": {
        "virus": {"name": "Virus", "color": "#c2410c"},
        "others": {"name": "Others", "color": "#2a6fb0"},
        "no_call": {"name": "No call", "color": "#a3acb8"},
    },
}
_GENERAL_SECTION: dict[str, Any] = {
    "id": "virnucpro_general",
    "plot_type": "generalstats",
    "headers": {
        "virus_percent": {
            "title": "% Viral",
            "description": "VirNucPro: share of records called virus",
            "suffix": "%",
            "min": 0,
            "max": 100,
            "format": "{:,.2f}",
            "scale": "Oranges",
        },
        "records": {
            "title": "Records",
            "description": "VirNucPro: reads or contigs",
            "format": "{:,.0f}",
            "scale": "Blues",
            "hidden": True,
        },
        "regions": {
            "title": "Viral regions",
            "description": "VirNucPro: stretches of records that score as viral",
            "format": "{:,.0f}",
            "scale": "Oranges",
            "hidden": True,
        },
        "provirus_candidates": {
            "title": "Proviruses?",
            "description": "VirNucPro: viral regions inside records called others",
            "format": "{:,.0f}",
            "scale": "Oranges",
        },
    },
}


def write_multiqc(folder: Path, counts: Mapping[str, Mapping[str, Any]]) -> None:
    """Publish both files in `folder`. counts: `counts` of `run.json` by sample. The same counts give the same bytes."""
    texts = multiqc_texts(counts)
    with publish_together(folder, MULTIQC_FILES) as files:
        for name, file in files.items():
            file.write_text(texts[name], encoding="utf-8")


def multiqc_texts(counts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The text of both files by their names. counts: `counts` of `run.json` by sample."""
    calls = {name: {call: of["calls"].get(call, 0) for call in CALLS} for name, of in counts.items()}
    general = {
        name: {
            "virus_percent": 100 * of["calls"].get("virus", 0) / max(of["records"], 1),
            "records": of["records"],
            "regions": of.get("regions", 0),
            "provirus_candidates": of.get("provirus_candidates", 0),
        }
        for name, of in counts.items()
    }
    return {
        CALLS_FILE: json_text(_CALLS_SECTION | {"data": calls}),
        GENERAL_FILE: json_text(_GENERAL_SECTION | {"data": general}),
    }
