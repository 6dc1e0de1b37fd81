"""Shows the progress of downloads and of archives on standard error: size, speed and time left of each file."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from virnucpro_assets.cli.console import console
from virnucpro_assets.platform.escapes import shows_escapes
from virnucpro_core.errors import printable
from virnucpro_core.models.downloads import OnBytes

LINE_SECONDS = 10.0


@contextlib.contextmanager
def shown_transfer() -> Iterator[OnBytes]:
    """Yield a function that shows how far a file is: bars in a terminal, else a line each ten seconds."""
    if not shows_escapes(sys.stderr):
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def on_bytes(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(printable(file).replace("[", r"\["), total=total)
            progress.update(tasks[file], completed=done, total=total)

        yield on_bytes


class _Lines:
    """`model.safetensors: 1.2 of 9.8 GB, 95 MB/s, about 91 s left`."""

    def __init__(self) -> None:
        self._file, self._began, self._first, self._last = "", 0.0, 0, 0.0

    def __call__(self, file: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if file != self._file:  # the time of the first bytes is not known
            self._file, self._began, self._first, self._last = file, now, done, now
        is_last = total is not None and done >= total
        if not is_last and now - self._last < LINE_SECONDS:
            return
        self._last = now
        speed = (done - self._first) / max(now - self._began, 1e-3)
        text = f"{printable(file)}: {_shown(done)}" + (f" of {_shown(total)}" if total is not None else "")
        if speed:
            text += f", {_shown(int(speed))}/s"
            if total is not None and not is_last:
                text += f", about {(total - done) / speed:,.0f} s left"
        print(text, file=sys.stderr, flush=True)


def _shown(count: int) -> str:
    """`11.4 GB`, `468.3 MB`, `12.0 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
