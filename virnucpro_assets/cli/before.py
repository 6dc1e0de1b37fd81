"""What `virnucpro predict` says before the work begins: what will be done, with which settings, under which names."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_assets.cli.words import counted
from virnucpro_core.errors import printable
from virnucpro_core.samples.settings import SampleSettings, setting_in_words

if TYPE_CHECKING:
    from virnucpro_assets.running.request import Request
    from virnucpro_core.samples.naming import Planned

SHOWN_NAMES = 3
SHOWN_GROUPS = 5
# Settings that are said together with others, or not in the words of `setting_in_words`.
_SAID = ("profile", "chunk_size", "frames", "min_open", "precision")


def plan_lines(request: "Request", out: Path, *, verbose: bool) -> Iterator[str]:
    """One line that says what will be done, if anything will.

    If settings of the samples differ, a line for each group of samples follows; with `verbose`, one for each sample.
    """
    from virnucpro_core.files.disk import shown_bytes

    if not request.wanted:
        return
    files = [file for one in request.wanted for file in one.files if file.is_file()]
    size = shown_bytes(sum(file.stat().st_size for file in files))
    what = f"{counted(len(request.wanted), 'sample')} ({counted(len(files), 'file')}, {size})"
    facts = _facts(request)
    common = {name for name in facts[0] if len({own[name] for own in facts}) == 1}
    words = ", ".join(text for name, text in facts[0].items() if name in common and text)
    yield f"{what}: {words or 'settings differ'}; results in {out}"
    if len(common) == len(facts[0]):
        return
    names = [one.name for one in request.wanted]
    own = [", ".join(text for name, text in each.items() if name not in common and text) for each in facts]
    yield from (map("  {}: {}".format, names, own)) if verbose else _grouped(names, own)


def _grouped(names: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """A line for each group of samples of the same words, the largest first."""
    groups: dict[str, list[str]] = {}
    for name, text in zip(names, words, strict=True):
        groups.setdefault(text, []).append(name)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    for text, own in ordered[:SHOWN_GROUPS]:
        yield f"  {counted(len(own), 'sample')} ({_some(own)}): {text}"
    if rest := ordered[SHOWN_GROUPS:]:
        others = counted(sum(len(own) for _, own in rest), "sample")
        yield f"  {others} with {counted(len(rest), 'other combination')} of settings: --verbose lists them"


def _facts(request: "Request") -> list[dict[str, str]]:
    """The settings of each sample in words, by name, each dict with the same names. "" says that there is nothing.

    A setting that is the default for all samples is left out, except profile, chunk size and precision.
    """
    settings = [one.settings for one in request.wanted]
    others = [
        field.name
        for field in dataclasses.fields(SampleSettings)
        if field.name not in _SAID
        and {getattr(one, field.name) for one in settings} - {field.default}
        and (
            field.name != "shard_rows" or len({one.shard_rows for one in settings}) > 1
        )  # it changes no call
    ]
    is_open = any(one.open_length for one in settings)
    platform, found = request.platform, []
    for one in settings:
        least = f"open frames of {one.open_length} or more amino acids"
        device = "CPU" if platform.device_of(one.profile) == "cpu" else "GPU"
        found.append(
            {"profile": f"profile {one.profile}", "chunk_size": f"chunks of {one.chunk_size}"}
            | {"frames": (least if one.open_length else "full frames only") if is_open else ""}
            | {"computing": f"{counted(platform.gpus, 'lane')} on the {device} in {one.precision}"}
            | {name: printable(setting_in_words(name, getattr(one, name))) for name in others}
        )
    return found


def notes(request: "Request") -> Iterator[str]:
    """What a person should know about the samples, each thing once."""
    yield from request.notes
    found: dict[str, list[str]] = {}
    for one in request.wanted:
        for note in one.notes:
            found.setdefault(note, []).append(one.name)
    for note, names in found.items():
        yield f"{_some(names)}: {printable(note)}"


def planned_lines(request: "Request", plans: Mapping[str, "Planned"], *, as_json: bool) -> Iterator[str]:
    """How each sample will be called, where its results will be, and what --fresh would delete.

    As JSON also with all of its settings.
    """
    for one in request.wanted:
        if one.name not in plans:
            continue
        plan = plans[one.name]
        sample, discards = plan.sample, plan.discards
        if as_json:
            facts = {
                "sample": sample.name,
                "name": one.name,
                "variant_of": sample.variant_of,
                "is_new": plan.is_new,
                "settings": dataclasses.asdict(one.settings),
            }
            deleted = {} if discards is None else {"fresh_deletes_bytes": discards.bytes}
            yield json.dumps(facts | {"out": str(one.out.resolve())} | deleted)
            continue
        variant = f", a variant of {sample.variant_of}" if sample.variant_of else ""
        state = (
            "new"
            if plan.is_new
            else "known already, its work is kept"
            if discards is None
            else "known already"
        )
        yield f"{sample.name}: {state}{variant}; results in {one.out}"
        if discards is not None:
            yield f"--fresh would delete {discards.in_words}"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return f"{', '.join(names[:SHOWN_NAMES])}{more}"
