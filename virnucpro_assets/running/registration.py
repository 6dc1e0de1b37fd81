"""Registers the samples of one `virnucpro predict`, after the names of all of them were looked at."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from virnucpro_assets.platform.instance import database_errors, open_instance
from virnucpro_assets.running.request import Request, Wanted
from virnucpro_core.errors import StoreError, UsageError, VirnucproError
from virnucpro_core.samples.naming import Planned, clashes, enter, planned
from virnucpro_core.samples.sample import NameTakenError, Sample, is_registered
from virnucpro_core.samples.sheet_faults import SheetFaults


def _on_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def say(line: str) -> None:
    """Print an error or a warning."""
    _on_stderr(f"virnucpro: {line}")


def registered(
    request: Request, *, fresh: bool, note: Callable[[str], None] = _on_stderr
) -> tuple[dict[str, Sample], dict[str, VirnucproError]]:
    """Register the wanted samples, each under its name or beside what has it already (`samples/naming.py`).

    Returns the samples, and the errors of those that cannot be predicted. Both are by the names in the request. If
    there are several samples, each error is also printed at once. `note` is called with lines for a person: a name that
    is not as wanted, and what `fresh` deletes.
    """
    samples: dict[str, Sample] = {}
    failures = {**request.failures, **check_names(request, fresh=fresh)}
    for one in request.wanted:
        if one.name in failures:
            continue
        try:
            with _no_key_left(request, one) if fresh else nullcontext():
                sample = samples[one.name] = enter(
                    request.platform.folder,
                    one.name,
                    one.files,
                    one.settings,
                    chosen=request.named,
                    fresh=fresh,
                    on_discard=lambda found: note(f"--fresh deleted {found.in_words}"),
                )
        except VirnucproError as error:
            failures[one.name] = error
            continue
        if line := _how_named(sample, one.name):
            note(line)
    if request.several:
        for failure in failures.values():
            say(str(failure))
    return samples, failures


@contextmanager
def _no_key_left(request: Request, one: Wanted) -> Iterator[None]:
    """At the end of the block, delete the partition keys of the variants that `fresh` deleted in it with the sample."""
    home, variants = request.platform.folder, tuple[str, ...]()
    with suppress(VirnucproError):  # what is wrong is said by the block
        plan = planned(home, one.name, one.files, one.settings, chosen=request.named, fresh=True)
        variants = plan.discards.variants if plan.discards else ()
    try:
        yield
    finally:
        if gone := [name for name in variants if not is_registered(home, name)]:
            with database_errors(), open_instance() as instance:
                for name in gone:
                    instance.delete_dynamic_partition("sample", name)


def check_names(request: Request, *, fresh: bool) -> dict[str, VirnucproError]:
    """Look at the names of all samples of a command before the first one is registered. Changes nothing.

    Returns the errors of samples that cannot be predicted beside another one. Those of a sheet are raised as
    SheetError, also for names that stand for other sequences, unless `fresh`. One file alone has nothing beside it.
    """
    if not request.several and request.sheet is None:
        return {}
    faults, plans = SheetFaults(request.sheet), dict[str, Planned]()
    home, chosen = request.platform.folder, request.named
    for one in request.wanted:
        # What is wrong with a single sample is said when it is registered.
        with suppress(VirnucproError if request.sheet is None else StoreError), faults.of(one.name, one.rows):
            try:
                plans[one.name] = planned(home, one.name, one.files, one.settings, chosen=chosen, fresh=fresh)
            except NameTakenError as error:
                raise UsageError(error.what, remedy="give another name in the column sample") from error
    failures: dict[str, VirnucproError] = {}
    for name, what in clashes(plans, chosen=chosen).items():
        if request.sheet is not None:
            rows = next(one.rows for one in request.wanted if one.name == name)
            faults.add(rows, f"{what}; give another name in the column sample", name)
        else:
            failures[name] = UsageError(what, where=name, remedy="predict it in a command of its own")
    faults.tell()
    return failures


def planned_samples(request: Request, *, fresh: bool) -> tuple[dict[str, Planned], dict[str, VirnucproError]]:
    """What `registered` would do, and the errors of what it would refuse, by the names in the request.

    Changes nothing. If there are several samples, each error is also printed at once.
    """
    plans: dict[str, Planned] = {}
    failures = {**request.failures, **check_names(request, fresh=fresh)}
    home, chosen = request.platform.folder, request.named
    for one in request.wanted:
        if one.name in failures:
            continue
        try:
            plans[one.name] = planned(home, one.name, one.files, one.settings, chosen=chosen, fresh=fresh)
        except VirnucproError as error:
            failures[one.name] = error
    if request.several:
        for failure in failures.values():
            say(str(failure))
    return plans, failures


def _how_named(sample: Sample, wanted: str) -> str:
    """Says how a sample is named; "" if it is named as wanted."""
    if sample.variant_of:
        return f"these settings are a variant of sample {sample.variant_of!r}: it is named {sample.name!r}"
    if sample.name == wanted:
        return ""
    if not is_registered(sample.home, wanted):
        return f"these files are sample {sample.name!r} already"
    return f"the name {wanted!r} stands for other sequences: this sample is named {sample.name!r}"
