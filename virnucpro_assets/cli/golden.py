"""Runs the golden self-check for the command line, prints one line a model, and tells the doctor's line about it."""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from virnucpro_core.errors import StoreError, UsageError, WeightsError

if TYPE_CHECKING:
    from virnucpro_core.models.golden import Outcome

# Memory that the check needs besides the weights of one model.
ROOM_BYTES = 1_000_000_000
_ON_A_GPU = "`virnucpro models verify --golden --device cuda --dtype float16`"


def verify_golden(
    folders: Mapping[str, Path], device: str, precision: str, beside: Iterable[str] = ()
) -> None:
    """Check these models against the golden answers and print how they compare.

    beside: installed models that have no golden answers, to be named. Raises WeightsError if a model differs, or all
    three together.
    """
    from virnucpro_assets.platform.resource import platform_from_environment
    from virnucpro_assets.platform.startup import lasting_imports

    with lasting_imports():
        from virnucpro_core.devices.cuda import usable_device
        from virnucpro_core.models.golden import CLASSIFIER, ENCODERS, published
        from virnucpro_core.models.golden_check import check_models, together

    if device == "cpu" and (lack := _lack_of_memory(folders)):
        raise UsageError(f"the golden self-check cannot run: {lack}", remedy=f"use a GPU: {_ON_A_GPU}")

    def show(outcome: "Outcome") -> None:
        click.echo(golden_line(outcome))
        _keep(folders[outcome.model], outcome)

    with platform_from_environment().compute_on(device).held() as name:
        found = check_models(
            published(),
            folders,
            device=usable_device(name, precision, option="--dtype"),
            precision=precision,
            on_outcome=show,
        )
    absent = [name for name in (*ENCODERS, CLASSIFIER) if name not in folders]
    for name in absent:
        click.echo(
            f"{name:14} not compared: it is not among these models, so nothing is said of all three together"
        )
    for name in beside:
        click.echo(f"{name:14} not compared: no golden answers exist for it")
    remedy = "the lines above say why; until that is mended, do not trust the scores"
    if not found.passed_together:
        click.echo(f"{'all three':14} {'DIFFERS':8} {together(found)}")
        for outcome in found.outcomes:
            _keep(folders[outcome.model], outcome)
    wrong = [outcome.model for outcome in found.outcomes if not outcome.passed]
    if wrong:
        raise WeightsError(f"{', '.join(wrong)}: not the published tool's answers", remedy=remedy)
    if found.agreeing is not None:
        frames = found.outcomes[0].frames
        click.echo(
            f"{', '.join(folders)} together reproduce the published tool's vectors and scores: {found.agreeing} of"
            f" {frames} frames, largest score difference {found.difference:.1e}"
        )


def _keep(folder: Path, outcome: "Outcome") -> None:
    """Keep the outcome for `virnucpro doctor`, or say that this is not possible."""
    from virnucpro_core.models.golden import write_record

    try:
        write_record(folder, outcome, datetime.datetime.now(datetime.UTC).date().isoformat())
    except StoreError as error:
        click.echo(f"the outcome cannot be kept for `virnucpro doctor`: {error}", err=True)


def golden_line(outcome: "Outcome") -> str:
    """`esm2-3b  passed  vectors 3.1e-06  scores 1.2e-07  flips 0 of 8  (float32 on cpu; allowed: ...)`."""
    from virnucpro_core.models.golden_check import shown_bounds

    figures = [
        f"vectors {outcome.vectors:.1e}" if outcome.vectors is not None else "",
        f"scores {outcome.scores:.1e}" if outcome.scores is not None else "scores not compared",
        f"flips {outcome.flips} of {outcome.frames}" if outcome.flips is not None else "",
        f"({outcome.precision} on {outcome.device}; allowed: {shown_bounds(outcome)})",
    ]
    mark = "passed" if outcome.passed else "DIFFERS"
    line = f"{outcome.model:14} {mark:8} {'  '.join(filter(None, figures))}"
    return f"{line}\n{'':14} {outcome.diagnosis}" if outcome.diagnosis else line


def golden_folders(store: Path, folders: Iterable[Path] = ()) -> dict[str, Path]:
    """The models to check: the given folders, or those of the store. Raises UsageError, WeightsError."""
    from virnucpro_core.models.golden import CLASSIFIER, ENCODERS

    names = (*ENCODERS, CLASSIFIER)
    given = {_model_of(folder): folder for folder in folders}
    found = given or {name: store / name for name in names if (store / name).is_dir()}
    if not found:
        raise WeightsError(
            f"none of the models with golden answers is in the store: {', '.join(names)}",
            where=store,
            remedy="run `virnucpro models fetch --profile esm2-3b`",
        )
    return found


def _model_of(folder: Path) -> str:
    """Which of the models with golden answers the folder holds, by its name or its manifest. Raises UsageError."""
    from virnucpro_core.files.manifest import read_manifest
    from virnucpro_core.models.golden import CLASSIFIER, ENCODERS, published

    if folder.resolve().name in (*ENCODERS, CLASSIFIER):
        return folder.resolve().name
    facts = read_manifest(folder)
    for name, kind in ENCODERS.items():
        if (facts.get("kind"), facts.get("dim")) == (kind, published().shapes[kind].width):
            return name
    if (facts.get("kind"), facts.get("chunk_size")) == ("classifier", 500):
        return CLASSIFIER
    raise UsageError(
        "no golden answers exist for this model",
        where=folder,
        remedy=f"they exist for {', '.join((*ENCODERS, CLASSIFIER))}",
    )


def golden_after_fetch(store: Path, names: Iterable[str]) -> None:
    """Run the check on the CPU for the models of `names` that have golden answers, or say why it is not run."""
    from virnucpro_core.models.golden import CLASSIFIER, ENCODERS

    fetched = list(names)
    if not set(fetched) & {*ENCODERS, CLASSIFIER}:
        click.echo("no golden answers exist for these models: nothing to compare with")
        return
    folders = golden_folders(store)
    if lack := _lack_of_memory(folders):
        click.echo(f"golden self-check not run: {lack}; run {_ON_A_GPU}")
        return
    verify_golden(folders, "cpu", "float32", without_answers(fetched))


def without_answers(names: Iterable[str]) -> list[str]:
    """Those of the models for which no golden answers exist."""
    from virnucpro_core.models.golden import CLASSIFIER, ENCODERS

    return [name for name in names if name not in (*ENCODERS, CLASSIFIER)]


def _lack_of_memory(folders: Mapping[str, Path]) -> str:
    """Why the CPU's memory does not hold the largest of the models in float32; "" if it does."""
    import psutil

    from virnucpro_core.models.golden_check import bytes_needed

    needed = max(bytes_needed(folder) for folder in folders.values()) + ROOM_BYTES
    free = psutil.virtual_memory().available
    if needed <= free:
        return ""
    return f"it needs {needed / 1e9:.1f} GB of memory on the CPU, {free / 1e9:.1f} GB are free"


def golden_states(store: Path, models: Iterable[str]) -> Iterator[tuple[str, bool | None, str]]:
    """(model, passed, text) for the doctor; passed is None if the check was not run or no answers exist."""
    from virnucpro_core.models.golden import CLASSIFIER, ENCODERS, read_record

    for model in models:
        if model not in (*ENCODERS, CLASSIFIER):
            yield model, None, "no golden answers exist for this model"
        elif (record := read_record(store / model)) is None:
            yield model, None, "not yet run; run `virnucpro models verify --golden`"
        else:
            passed = bool(record["passed"])
            done = f"{record['date']} ({record['precision']} on {record['device']})"
            text = f"passed on {done}" if passed else f"differed on {done}: {record['diagnosis']}"
            yield model, passed, text
