"""The local model store: find and verify models. Each model has a folder of its name.

If a model is missing, the error says how to get it. `fetching` downloads models, the published ones are listed in
`sources`, and `profiles` says which models belong together.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.files.manifest import verify
from virnucpro_core.models.sources import SOURCES, Source

TRAINING_SEQUENCES = "training_sequences.npy"
# All files that a model can have; its `manifest.json` lists those that it has.
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", TRAINING_SEQUENCES)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class ModelStore:
    """`root/NAME/` holds config.json, model.safetensors, manifest.json and, for dnabert-s, tokenizer.json."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """The folder of a model, which need not exist. Raises UsageError for an invalid name."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a model name", remedy=f"published models: {', '.join(SOURCES)}"
            )
        return self.root / name

    def require(self, name: str) -> Path:
        """The folder of a model, after checking that all its files exist with their full size.

        Raises WeightsError that says what is missing, where it comes from, how large it is and how to get it.
        """
        folder = self.path(name)
        if not folder.is_dir():
            raise WeightsError(
                f"the model {name} is not in the model store", where=folder, remedy=remedy(name, folder)
            )
        verify(folder, up_to=0)
        return folder

    def verify(self, name: str) -> Path:
        """Like `require`, and checks the sha256 of every file."""
        folder = self.require(name)
        verify(folder)
        return folder

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these models are not in the store."""
        return [name for name in dict.fromkeys(names) if not self.path(name).is_dir()]


def fetchable(name: str, folder: Path) -> Source:
    """The source of a model that can be fetched. Raises UsageError for an unknown name, WeightsError if not pinned."""
    source = SOURCES.get(name)
    if source is None:
        close = difflib.get_close_matches(name, SOURCES, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"there is no published model {name!r}",
            remedy=f"{meant}published models: {', '.join(SOURCES)}; your own classifiers come from `virnucpro train`",
        )
    if not source.files:
        raise WeightsError(f"the model {name} cannot be fetched", remedy=remedy(name, folder))
    return source


def remedy(name: str, folder: Path) -> str:
    """What the user has to do to get the model `name` into `folder`: source, size and command."""
    source = SOURCES.get(name)
    if source is None:
        return (
            f"no such classifier is published: train one (`virnucpro train --out {folder}`), copy the folder of a"
            f" trained one there, or import a .pth file with `virnucpro models import classifier PATH --out {folder}`"
        )
    by_hand = f"`virnucpro models import {source.kind} PATH --out {folder}`"
    if not source.files:
        return f"download {source.address} ({source.shown_size}) yourself, then run {by_hand}"
    return (
        f"run `virnucpro models fetch {name}` ({source.shown_size} from {source.address}), or import"
        f" files that you have with {by_hand}"
    )
