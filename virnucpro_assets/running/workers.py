"""Processes that `virnucpro predict` starts and watches: lanes and batches."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from virnucpro_assets.platform.startup import import_nothing_from_here
from virnucpro_core.errors import DeviceLostError

GRACE_SECONDS = 20.0


RESTARTS, RESTART_SECONDS = 3, 2.0


log = logging.getLogger(__name__)


class Worker:
    """A lane's or a batch's process, and the next where its device was lost: at most RESTARTS times, later each time.

    words: the module and its arguments; log: what it says goes to files of this name, `.out` and `.err`.
    """

    def __init__(self, words: Sequence[str], name: str, log: Path) -> None:
        self.words, self.name, self.log = [sys.executable, "-m", *words], name, log
        self.restarts = 0
        self._due: float | None = None
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Begin; nothing runs before this."""
        self.process = self._start("wb")

    def goes_on(self) -> bool:
        """Whether the lane is at work, or will be again."""
        code = self.process.poll()
        if code is None:
            return True
        if code != DeviceLostError.exit_code or self.restarts >= RESTARTS:
            return False
        if self._due is None:
            wait = RESTART_SECONDS * 2**self.restarts
            self._due = time.monotonic() + wait
            log.warning("%s: started anew in %.0f s: %s", self.name, wait, self.said()[-1])
        elif time.monotonic() >= self._due:
            self.close()
            self.restarts, self._due = self.restarts + 1, None
            self.process = self._start("ab")
        return True

    def said(self) -> list[str]:
        """Lines on its standard output."""
        text = self.log.with_suffix(".out").read_text(encoding="utf-8", errors="replace")
        return text.strip().splitlines()

    def last_words(self) -> str:
        """What it said last; where it was killed or said nothing, how it ended and where its log is."""
        code, said = self.process.returncode, self.said()
        if said and code >= 0:
            return said[-1]
        how = (
            f"was ended by signal {-code} ({signal.strsignal(-code)})"
            if code < 0
            else f"ended with code {code}"
        )
        return f"{how}; its log is {self.log.with_suffix('.err')}"

    def close(self) -> None:
        """Let go of its standard input: a process that is still there ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _start(self, mode: str) -> "subprocess.Popen[bytes]":
        import_nothing_from_here()
        with self.log.with_suffix(".out").open(mode) as out, self.log.with_suffix(".err").open(mode) as err:
            return subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,  # it ends with us, however we end
                stdout=out,
                stderr=err,
                start_new_session=True,  # an interrupt at the terminal reaches the driver, which ends them in order
            )


@contextmanager
def at_work(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """The workers, started; whatever ends the block ends them, gently at first."""
    begun: list[Worker] = []
    try:
        for worker in workers:
            worker.start()
            begun.append(worker)
        yield workers
    finally:
        _end([worker.process for worker in begun])
        for worker in begun:
            worker.close()


def _end(lanes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for lane in lanes:
        if lane.poll() is None:
            lane.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for lane in lanes:
        with suppress(subprocess.TimeoutExpired):
            lane.wait(max(0.0, deadline - time.monotonic()))
        if lane.poll() is None:
            lane.kill()
            lane.wait()
