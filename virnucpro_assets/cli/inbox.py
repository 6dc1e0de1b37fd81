"""`virnucpro inbox`: what became of every file of the inbox, in words."""

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

MOVED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry of the inbox; of a run or a sheet, what became of one of its samples.

    outcome: `waiting` (not seen by the daemon yet), `arriving`, `unreadable`, `failing`, `refused`, `registered`,
    `taken`, or `settings` for a settings file that holds for no entry. state: of its sample (`virnucpro samples`).
    failure: why the latest run of the sample failed, "" if it did not.
    moved_to: where the entry is now, if it was moved out of the inbox. at: when, in seconds since 1970.
    """

    entry: str
    outcome: str
    why: str = ""
    sample: str = ""
    state: str = ""
    failure: str = ""
    moved_to: str = ""
    at: float = 0.0


WORDS = {
    "waiting": "not seen yet: the inbox is scanned while `virnucpro ui` or the daemon runs",
    "arriving": "still arriving",
    "unreadable": "cannot be read now, will be tried again",
    "failing": "cannot be registered now, will be tried again",
    "refused": "refused",
    "registered": "registered",
    "taken": "taken",
    "settings": "a settings file for which there is no entry of this name",
}


@click.command()
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help=f"List all entries that were moved away, not the last {MOVED_SHOWN}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for programs.")
def inbox(*, show_all: bool, as_json: bool) -> None:
    """Show what became of every file in the inbox.

    The list has the latest outcome of each entry: what it waits for, why it was refused, or which sample it is and how
    far that is. Entries that were moved to set_aside/ or done/ come last. A sequencer's run and a sample sheet may be
    several samples: --json has a line for each of them.

    A sample takes each setting from the nearest settings file: NAME.toml beside it, virnucpro.toml in its folder or in
    the inbox. Else the environment of `virnucpro ui` or the daemon decides, else VIRNUCPRO_HOME/virnucpro.toml.

    \b
    Examples:
      virnucpro inbox
      virnucpro inbox --json
    """
    from virnucpro_assets.platform.environment import home_folder

    home = home_folder()
    found = _with_states(home, [*_present(home), *sorted(_moved(home), key=lambda one: one.at)])
    present, moved = ([one for one in found if bool(one.moved_to) == away] for away in (False, True))
    if as_json:
        for one in (*present, *moved):
            click.echo(json.dumps(asdict(one)))
        return
    entries, gone = _by_entry(present), _by_entry(moved)
    shown = gone if show_all else gone[-MOVED_SHOWN:]
    width = max((len(own[0].entry) for own in (*entries, *shown)), default=0)
    for own in (*entries, *shown):
        click.echo(f"{own[0].entry:{width}}  {_words(own)}")
    hidden = f", {len(gone) - len(shown):,} of them not shown (--all)" if len(gone) > len(shown) else ""
    away = f"; {len(gone):,} moved away{hidden}" if gone else ""
    number = f"{len(entries):,} {'entry' if len(entries) == 1 else 'entries'}"
    click.echo(f"{number} in {home / 'inbox'}{away}")


def _by_entry(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """The outcomes of each entry, which follow each other."""
    return [list(own) for _, own in itertools.groupby(outcomes, key=lambda one: (one.entry, one.moved_to))]


def _words(outcomes: Sequence[Outcome]) -> str:
    """What became of one entry, in a line."""
    one = outcomes[0]
    line = WORDS[one.outcome]
    if len(outcomes) > 1:
        states = Counter("failed" if own.failure else own.state or "removed" for own in outcomes)
        line = f"{len(outcomes):,} samples: {', '.join(f'{n:,} {state}' for state, n in states.items())}"
        line += "".join(f"; {own.sample} failed: {own.failure}" for own in outcomes if own.failure)
    elif one.sample:
        line = f"sample {one.sample}: {one.state or 'removed'}"
        line += f", failed: {one.failure}" if one.failure else ""
    if one.why:
        line += f": {one.why}" if not one.sample else f" ({one.why})"
    return f"{line}; moved to {one.moved_to}" if one.moved_to else line


def _present(home: Path) -> Iterator[Outcome]:
    """The entries that are in the inbox, as the latest scan left them, and those that no scan has seen."""
    from virnucpro_core.errors import printable
    from virnucpro_core.files.disk import disk_errors
    from virnucpro_core.samples.inbox_entry import is_partial
    from virnucpro_core.samples.inbox_settings import is_settings_file, lonely
    from virnucpro_core.samples.inbox_state import noted_entries, shown

    folder = home / "inbox"
    with disk_errors(folder):
        names = sorted(os.listdir(folder)) if folder.exists() else []  # noqa: PTH208 - names alone
    rows = {os.fsdecode(row.name): row for row in noted_entries(home)}
    alone = lonely(names, [os.fsencode(n) for n in names if not is_settings_file(n)])
    for name in names:
        if name.startswith(".") or (is_settings_file(name) and name not in alone):
            continue
        row = rows.get(name)
        if name in alone:
            yield Outcome(printable(name), "settings")
        elif is_partial(name):
            if not name.lower().endswith(".done"):
                yield Outcome(printable(name), "arriving", "its name says that it is not complete")
        elif row is None:
            yield Outcome(printable(name), "waiting")
        else:
            is_sample = row.kind in ("registered", "taken")
            for sample in (is_sample and row.sample_names) or [""]:
                yield Outcome(shown(row.name), row.kind, row.said, sample)


def _moved(home: Path) -> Iterator[Outcome]:
    from virnucpro_core.errors import printable
    from virnucpro_core.samples.inbox_state import moved_entries, shown

    for one in moved_entries(home):
        place = printable(os.fsdecode(one.moved_to))
        for sample in one.sample_names or [""]:
            yield Outcome(shown(one.name), one.kind, one.said, sample, moved_to=place, at=one.at)


def _with_states(home: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with how far their samples are, and why their runs failed."""
    from virnucpro_assets.cli.samples import failures_of
    from virnucpro_core.errors import VirnucproError
    from virnucpro_core.pipeline.overview import Overview, overview

    seen: dict[str, Overview] = {}
    for name in {one.sample for one in outcomes if one.sample}:
        with contextlib.suppress(VirnucproError):  # it was removed
            seen[name] = overview(home, name)
    failures = failures_of([one for one in seen.values() if one.state != "called"])
    states = {name: one.state for name, one in seen.items()}
    return [
        replace(one, state=states.get(one.sample, ""), failure=failures.get(one.sample, ""))
        for one in outcomes
    ]
