"""Starts and watches the worker processes of `virnucpro predict`: one per GPU, and one for work without a GPU."""

import contextlib
import logging
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from virnucpro_assets.platform.environment import IN_PROCESS, export, settings
from virnucpro_assets.platform.startup import import_nothing_from_here
from virnucpro_assets.platform.tags import DRIVER
from virnucpro_assets.running.tasks import AHEAD, END, HOST, PREPARE, Outcome, Task
from virnucpro_core.errors import DeviceLostError
from virnucpro_core.samples.sample import SMALL_BYTES

MODULE = "virnucpro_assets.running.worker"
GRACE_SECONDS = 20.0
RESTARTS, RESTART_SECONDS = 3, 2.0
LOG_SECONDS = 7 * 86_400.0
log = logging.getLogger(__name__)


class Worker:
    """A worker and its process.

    If the process loses its device, it is started again after a growing wait, at most RESTARTS times per task.
    log: path without suffix of the files for its output (`.out`) and errors (`.err`).
    """

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self.command = [sys.executable, "-m", MODULE, name]
        self.task: Task | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.died = False
        self._due: float | None = None
        self._read = 0

    def start(self) -> None:
        """Start the process if it is not running. Its imports take some seconds, so call this early."""
        if self.process is not None and self.process.poll() is None:
            return
        self._forget()  # it died while it was idle
        self.log.parent.mkdir(parents=True, exist_ok=True)
        import_nothing_from_here()
        out, err = self.log.with_suffix(".out"), self.log.with_suffix(".err")
        with out.open("ab") as said, err.open("ab") as errors:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends; the worker then ends too
                stdout=said,
                stderr=errors,
                start_new_session=True,  # Ctrl-C at the terminal reaches only the driver, which then ends the workers
            )

    def prepare(self, lane: str, driver: str) -> None:
        """Start the process, and let it load the models of the lane with this key."""
        self._send(Task(PREPARE, (lane,), driver))

    def embed_ahead(self, task: Task) -> None:
        """Let the worker begin with the lanes of a task that it is given next."""
        self._send(replace(task, job=AHEAD))

    def give(self, task: Task) -> None:
        """Give the worker a task. It must not have one already."""
        assert self.task is None
        self.task, self.restarts = task, 0
        self._send(task)

    def poll(self) -> Outcome | None:
        """The outcome of the task; None while it runs."""
        if self.task is None or (self._due is not None and time.monotonic() < self._due):
            return None
        if self._due is not None:
            self._due = None
            self.restarts += 1
            self._send(self.task)
            return None
        code = (
            self.process.poll() if self.process is not None else None
        )  # before its output is read: the process may print an outcome and then end
        outcome = next((found for line in self._lines() if (found := Outcome.read(line))), None)
        if outcome is None and code is not None:
            outcome = self._ended(code)
        if outcome is not None:
            self.task = None
        return outcome

    def end(self) -> None:
        """Ask the process to end: with SIGTERM, and with a last task, in case its run swallows the signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self._write(Task(END, (), ""))

    def wait(self, deadline: float) -> None:
        """Wait until the process has ended; kill it at the deadline (seconds of `time.monotonic`)."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        if self.process.poll() is None:
            self.process.kill()
        self._forget()
        if not self.died:
            self._forget_logs()

    def _send(self, task: Task) -> None:
        self.start()
        self._write(task)

    def _write(self, task: Task) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: `poll` will notice
            self.process.stdin.write(task.line().encode())
            self.process.stdin.flush()

    def _ended(self, code: int) -> Outcome | None:
        """The outcome of the task after its process has ended; None if a new process will go on with the task."""
        words = self._last_words(code)
        self._forget()
        self.died = True
        lost = code == DeviceLostError.exit_code
        if lost and self.restarts < RESTARTS:
            wait = RESTART_SECONDS * 2**self.restarts
            self._due = time.monotonic() + wait
            log.warning("%s: starting again in %.0f s: %s", self.name, wait, words)
            return None
        return Outcome(words, exit_code=code if code in (2, DeviceLostError.exit_code) else 3, died=True)

    def _forget(self) -> None:
        if self.process is not None:
            if self.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self.process.stdin.close()
            self.process.wait()
            self.process = None

    def _forget_logs(self) -> None:
        """Delete the log files. They are only needed if a process has died."""
        for suffix in (".out", ".err"):
            self.log.with_suffix(suffix).unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        """The complete lines of its standard output since the last call."""
        with self.log.with_suffix(".out").open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()

    def _last_words(self, code: int) -> str:
        """The last line of its output; if it was killed or printed nothing, how it ended and where its log is."""
        text = self.log.with_suffix(".out").read_text(encoding="utf-8", errors="replace")
        said = [line for line in text.strip().splitlines() if Outcome.read(line) is None]
        if said and code >= 0:
            return said[-1]
        how = (
            f"was ended by signal {-code} ({signal.strsignal(-code)})"
            if code < 0
            else f"ended with code {code}"
        )
        return f"{how}; its log is {self.log.with_suffix('.err')}"


class Crew:
    """The workers of one `virnucpro predict`: one for work without a GPU, and one for each GPU.

    home: the platform's folder, for their logs. Logs older than LOG_SECONDS are deleted.
    """

    def __init__(self, home: Path, gpus: int) -> None:
        self.home, logs, name = home, home / "logs", f"{DRIVER}{uuid.uuid4()}"
        for old in logs.glob(f"{DRIVER}*"):
            with contextlib.suppress(FileNotFoundError):  # another command has deleted it
                if old.stat().st_mtime < time.time() - LOG_SECONDS:
                    old.unlink()
        self.host = Worker(HOST, logs / f"{name}-{HOST}")
        self.gpus = [Worker(f"gpu-{rank}", logs / f"{name}-gpu-{rank}") for rank in range(gpus)]
        self.all = [self.host, *self.gpus]


@contextlib.contextmanager
def early_workers(files: Sequence[Path], out: Path, *, gpus: int, device: str) -> Iterator[Crew]:
    """Workers for a prediction of these files. They start now, while this process imports and checks what is asked.

    They wait for tasks and touch no device. They are not started if there is perhaps nothing to compute: if no file is
    given or one is missing, or if `out` has results; nor in a home that does not exist, which a refused command must
    not make. gpus, device: as the user gave them; 0 and "" mean not given. They end with the block. Raises UsageError
    for settings of the environment that are not valid.
    """
    given = settings()
    given |= {"gpus": gpus or given["gpus"], "device": device or given["device"], "executor": IN_PROCESS}
    crew = Crew(Path(given["home"]), given["gpus"])
    with at_work(crew.all):
        # A file, a folder or a place for logs may be missing: the checks will say so.
        with contextlib.suppress(OSError):
            sizes = [file.stat().st_size for file in files]
            if sizes and crew.home.is_dir() and not (out.exists() and any(out.iterdir())):
                export(SimpleNamespace(**given))
                for worker in crew.all[: 2 if sum(sizes) <= SMALL_BYTES else None]:
                    worker.start()
        yield crew


@contextlib.contextmanager
def at_work(workers: Sequence[Worker]) -> Iterator[None]:
    """End the workers' processes when the block ends: first with SIGTERM, and with SIGKILL after GRACE_SECONDS."""
    try:
        yield
    finally:
        for worker in workers:
            worker.end()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.wait(deadline)
