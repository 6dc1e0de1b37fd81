"""Reads a results folder that is complete: its facts, the names of its files, its first calls, its digest."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

from virnucpro_core.errors import StoreError
from virnucpro_core.files.digests import sha256_json, sha256_once
from virnucpro_core.results.folder import CONTIGS, RUN


def read_results(folder: Path) -> dict[str, Any]:
    """The content of `run.json`, after the sha256 of every file that it lists was checked.

    Raises StoreError that names the missing or damaged file.
    """
    remedy = "predict the sample again: the results are written again"
    try:
        facts: dict[str, Any] = json.loads((folder / RUN).read_bytes())
        files = {str(name): str(file["sha256"]) for name, file in facts["files"].items()}
        facts["digests"]["sample"], facts["settings"], facts["counts"]["records"], facts["counts"]["frames"]
    except FileNotFoundError as error:
        raise StoreError("there are no complete results", where=folder, remedy=remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("damaged", where=folder / RUN, remedy=remedy) from error
    for name, sha256 in files.items():
        file = folder / Path(name).name
        if not file.is_file() or sha256_once(file) != sha256:
            raise StoreError("missing, or its sha256 is not the one in run.json", where=file, remedy=remedy)
    return facts


def listed_files(folder: Path) -> list[str]:
    """Names of the result files in this folder, in the order of `run.json`, which comes last. Reads no other file.

    Raises StoreError if there are no complete results.
    """
    remedy = "predict the sample again: the results are written again"
    try:
        names = [str(name) for name in json.loads((folder / RUN).read_bytes())["files"]]
    except FileNotFoundError as error:
        raise StoreError("there are no complete results", where=folder, remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError("damaged", where=folder / RUN, remedy=remedy) from error
    return [*(name for name in names if Path(name).name == name), RUN]


def first_calls(folder: Path, rows: int) -> list[dict[str, str]]:
    """The first rows of `contigs.tsv` in this folder. A sample may have millions of records."""
    with (folder / CONTIGS).open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return list(itertools.islice(table, rows))


def results_digest(folder: Path) -> str:
    """sha256 over the files' digests as `run.json` lists them, and that of `run.json` itself.

    Raises StoreError if there are no complete results. Reads no other file.
    """
    try:
        files = json.loads((folder / RUN).read_bytes())["files"]
        listed = {str(name): str(file["sha256"]) for name, file in files.items()}
        return sha256_json(listed | {RUN: sha256_once(folder / RUN)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            "there are no complete results", where=folder, remedy="predict the sample again"
        ) from error
