"""The record of features that were imported into a sample: whose they are, from which files, and their digest.

As long as the sample has this record, its embeddings are never computed here: they are the imported ones, or missing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.files.publish import publish_json
from virnucpro_core.models.profiles import ImportedFeatures
from virnucpro_core.samples.sample import IMPORTED as RECORD
from virnucpro_core.samples.settings import SampleSettings

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Import:
    """One import. files: name, kind and sha256 of each feature file. matched_by: how vectors found their frames.

    digest: sha256 of all this; part of the identity of every row that depends on the import.
    """

    origin: str
    files: tuple[dict[str, str], ...]
    profile: str
    chunk_size: int
    matched_by: str
    widths: tuple[int, int]

    @property
    def digest(self) -> str:
        return sha256_json(
            _facts(self) | {"origin": ""}
        )  # the same files under another folder are the same import

    @property
    def features(self) -> ImportedFeatures:
        """What takes the place of the encoders."""
        return ImportedFeatures(self.digest, *self.widths)

    @property
    def note(self) -> str:
        """What results say about their embeddings."""
        return (
            f"The embeddings were not computed here: they were imported from {self.origin} ({len(self.files)} files,"
            f" matched by {self.matched_by}, sha256 {self.digest[:12]})."
        )


def write_import(folder: Path, record: Import) -> None:
    """Publish the record in the sample's folder."""
    facts = _facts(record)
    publish_json(folder / RECORD, facts | {"seal": sha256_json(facts)})


def read_import(folder: Path) -> Import | None:
    """The record in the sample's folder; None if nothing was imported. Raises StoreError if it is damaged."""
    file = folder / RECORD
    try:
        facts: dict[str, Any] = json.loads(file.read_bytes())
        if facts.pop("seal") != sha256_json(facts) or facts.pop("format") != _FORMAT:
            raise ValueError
        return Import(
            origin=facts["origin"],
            files=tuple(facts["files"]),
            profile=facts["profile"],
            chunk_size=facts["chunk_size"],
            matched_by=facts["matched_by"],
            widths=(facts["widths"][0], facts["widths"][1]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise StoreError("damaged", where=file, remedy="run `virnucpro import-features` again") from error


def imported_features(folder: Path, settings: SampleSettings) -> ImportedFeatures | None:
    """What was imported into the sample's folder; None if nothing was.

    Raises UsageError if the settings are not those of the import: its vectors are then not of the sample's frames.
    """
    record = read_import(folder)
    if record is None:
        return None
    for name, wanted, asked in (
        ("chunk-size", record.chunk_size, settings.chunk_size),
        ("profile", record.profile, settings.profile),
        ("frames", "full", settings.frames),
    ):
        if wanted != asked:
            raise UsageError(
                f"features were imported into sample {folder.name!r} for --{name} {wanted}, not {asked}",
                where=folder,
                remedy=f"give --{name} {wanted}; or --fresh, which deletes them, to compute the embeddings here",
            )
    return record.features


def _facts(record: Import) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "origin": record.origin,
        "files": list(record.files),
        "profile": record.profile,
        "chunk_size": record.chunk_size,
        "matched_by": record.matched_by,
        "widths": list(record.widths),
    }
