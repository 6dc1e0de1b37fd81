"""The settings files of the inbox: which settings hold for an entry, and whether its own have changed.

    inbox/virnucpro.toml          for all entries; move-taken = true moves files that were taken to done/
    inbox/run7/virnucpro.toml     for the folder run7
    inbox/run7.toml, s.toml       for the folder run7, for s.fa or for s_R1.fq and s_R2.fq

The nearest file decides each setting. A change of an entry's own files makes it arrive again, as a sample or variant
with these settings. A change of the file for all holds for what arrives later.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virnucpro_core.errors import InputError, UsageError, VirnucproError
from virnucpro_core.files.digests import sha256_json
from virnucpro_core.samples.combined import layered
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.settings_file import NAME, read_settings_file
from virnucpro_core.sequences.names import looks_like_sequence_file, names_of

SUFFIX = ".toml"
_MARK = " settings:"
# Settings of the inbox itself, which only its own file has.
OF_INBOX: Mapping[str, Any] = {"move_taken": bool}


class SettingsFiles:
    """The settings files that lie in the inbox in one scan. names: of everything in it."""

    def __init__(self, inbox: Path, names: Sequence[str]) -> None:
        self._inbox = inbox
        self._beside: dict[str, list[str]] = {}
        for name in sorted(names):
            if is_settings_file(name) and name != NAME:
                self._beside.setdefault(_of(name), []).append(name)

    def own(self, entry: Path, *, is_folder: bool) -> list[Path]:
        """The files that hold for this entry alone, the nearest last."""
        found = [entry / NAME] if is_folder and (entry / NAME).is_file() else []
        if self._beside:
            bare = [entry.name] if is_folder else [*names_of(entry), entry.name]
            found += [self._inbox / file for name in bare for file in self._beside.get(name, ())]
        return list(dict.fromkeys(found))

    def marked(self, identity: str, entry: Path, before: str, *, is_folder: bool) -> str:
        """The identity of an entry together with its own settings files.

        before: the identity that was noted. A settings file that was taken away changes nothing.
        """
        own = self.own(entry, is_folder=is_folder)
        if not own:
            return before if before.startswith(identity + _MARK) else identity
        stats = [(file.name, file.stat()) for file in own]
        return identity + _MARK + sha256_json([[name, s.st_size, s.st_mtime_ns] for name, s in stats])[:16]

    def given(self, entries: Sequence[Path], *, alone: bool = False) -> Mapping[str, Any]:
        """The settings for a sample of these entries. Raises UsageError, StoreError for a file with a fault.

        alone: only those that hold for these entries alone, not those of the file for all.
        """
        common = self._inbox / NAME
        found = dict(_read(common, OF_INBOX)) if common.exists() and not alone else {}
        for name in OF_INBOX:
            found.pop(name, None)
        for entry in entries:
            for file in self.own(entry, is_folder=entry.is_dir()):
                found = layered(found, _read(file))
        return found

    def moves_taken(self) -> bool:
        """Whether files that were taken are moved to done/. A settings file with a fault moves nothing."""
        try:
            return bool(_read(self._inbox / NAME, OF_INBOX).get("move_taken", False))
        except VirnucproError:  # no such file, or a fault that is said of every file that arrives
            return False


def is_settings_file(name: str) -> bool:
    """Whether an entry of this name holds settings and is no sample."""
    return name.lower().endswith(SUFFIX) and not looks_like_sequence_file(Path(name))


def _of(name: str) -> str:
    """What a settings file of this name is for: `run7` for `run7.toml` and `run7.TOML`."""
    return name[: -len(SUFFIX)]


def in_a_settings_file(text: str) -> str:
    """An error's text with the keys that settings have in a file: `--min-open` is `min-open` there."""
    keys = SampleSettings.__dataclass_fields__
    flags = {f"--{word}": f'preset = "{word}"' for word in ("conservative", "relaxed")}

    def key(option: re.Match[str]) -> str:
        return flags.get(option[0]) or (option[1] if option[1].replace("-", "_") in keys else option[0])

    return re.sub(r"--([a-z][a-z-]*)", key, text)


def lonely(names: Sequence[str], entries: Sequence[bytes]) -> list[str]:
    """Settings files of the inbox that hold for none of the entries."""
    paths = [Path(os.fsdecode(name)) for name in entries]
    used = {bare for path in paths for bare in (*names_of(path), path.name)}
    return sorted(name for name in names if is_settings_file(name) and name != NAME and _of(name) not in used)


def _read(file: Path, also: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """As `read_settings_file`, but a fault in the settings is no fault of the sequences: a UsageError."""
    try:
        return read_settings_file(file, also)
    except InputError as error:
        raise UsageError(error.what, where=error.where, remedy=error.remedy) from error
