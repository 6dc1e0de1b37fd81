"""One process a GPU on the whole machine: a lease is an OS lock on a file that is named by the device's UUID.

The folder of these files is one for all users, homes and containers that share the GPUs; a lock vanishes with its
process. The file's text says who holds it, or that the device failed. Knows UUIDs, files and ranks; never starts CUDA.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.devices.visible import Device
from virnucpro_core.errors import DeviceError, DeviceLostError, printable
from virnucpro_core.files.disk import TEMPORARY, disk_errors
from virnucpro_core.files.locks import same_file

FOLDER = Path("/var/tmp/virnucpro-leases")  # noqa: S108 - one for all users, who could hold any lease anyway
POLL_SECONDS = 0.2
MARK_SECONDS = 3600.0
_TEXT_BYTES = 4096
_SHOWN = 200
MODE, SUFFIX = 0o1777, ".lease"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a device was given up, and when (seconds since 1970)."""

    reason: str
    since: float


@dataclass(slots=True)
class ProcessDevice:
    """The one device that this process computes on. CUDA is narrowed to it before it starts, by `narrow(uuid)`."""

    narrow: Callable[[str], None]
    uuid: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Leases:
    """Leases on `devices`, in the order of the ranks. The same folder must be given to all that share a device."""

    folder: Path
    devices: Sequence[Device]
    process: ProcessDevice

    @contextlib.contextmanager
    def held(self, rank: int, *, needed: Callable[[], bool]) -> Iterator[Device | None]:
        """A device for this process alone; waits for its holder while `needed()`; None once that says no.

        It is the rank's own one, or any healthy one if that has failed; and always the one that this process has
        started on. Raises DeviceError where there is none, DeviceLostError where only a new process can have one.
        """
        with contextlib.ExitStack() as closing:
            device = None
            with disk_errors(self.folder):
                _prepare(self.folder)
                waits = False
                while device is None and needed():
                    candidates = self.candidates(rank)
                    device = next((d for d in candidates if self._take(d, closing)), None)
                    if device is None:
                        if not waits:
                            holders = "; ".join(f"{d.uuid} ({d.name}): {self.holder(d)}" for d in candidates)
                            log.warning("rank %d waits for a device: %s", rank, holders)
                        waits = True
                        time.sleep(POLL_SECONDS)
            if device is not None and not self.process.uuid:
                self.process.narrow(device.uuid)
                self.process.uuid = device.uuid
            yield device

    def candidates(self, rank: int) -> list[Device]:
        """The devices that the rank may have at this moment, the best first."""
        if self.process.lost:
            raise DeviceLostError(self.process.lost, remedy="run the same command again")
        if rank >= len(self.devices):
            raise DeviceError(
                f"rank {rank}: {len(self.devices)} GPUs are visible",
                remedy="lower --gpus, or check CUDA_VISIBLE_DEVICES and `virnucpro doctor`",
            )
        healthy = [d for d in self.devices if self.failure(d) is None]
        if not healthy:
            raise DeviceError(
                "every visible GPU has failed within the hour",
                where=self.folder,
                remedy="see `virnucpro doctor`; `virnucpro doctor --clear-failed` tries them again",
            )
        if self.process.uuid:
            mine = [d for d in healthy if d.uuid == self.process.uuid]
            if not mine:
                raise DeviceLostError(
                    f"{self.process.uuid} has failed since", remedy="run the same command again"
                )
            return mine
        own = self.devices[rank]
        return [own] if own in healthy else healthy[::-1]  # the last ones are the likeliest to be spare

    def mark_failed(self, device: Device, reason: str) -> None:
        """For MARK_SECONDS nobody is given the device. Called by its holder."""
        with disk_errors(self.folder), _opened(self._file(device)) as handle:
            _write(handle, {"failed": reason, "since": time.time()})

    def clear(self, device: Device) -> bool:
        """Forget that the device failed; whether it had."""
        if self.failure(device) is None:
            return False
        with disk_errors(self.folder), _opened(self._file(device)) as handle:
            _write(handle, {})
        return True

    def failure(self, device: Device) -> Failure | None:
        """Why the device is given to nobody; None if it may be used."""
        text = _read(self._file(device))
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            found = Failure(_shown(text["failed"]), float(text["since"]))
            return found if abs(time.time() - found.since) < MARK_SECONDS else None
        return None

    def holder(self, device: Device) -> str:
        """Who computes on the device now; "" if nobody does."""
        file = self._file(device)
        with contextlib.suppress(OSError), _looked_at(file) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _shown(_read(file).get("holder", "holder unknown"))
        return ""

    def _take(self, device: Device, closing: contextlib.ExitStack) -> bool:
        with contextlib.ExitStack() as attempt:
            file = self._file(device)
            handle = attempt.enter_context(_opened(file))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            # Its last holder may have marked it, or somebody deleted the file, while we came for the lock.
            if self.failure(device) is not None or not same_file(file, handle):
                return False
            who = f"process {os.getpid()} of user {os.getuid()} on {socket.gethostname()}"
            _write(handle, {"holder": who, "since": time.time()})
            closing.push(attempt.pop_all())
        return True

    def _file(self, device: Device) -> Path:
        return self.folder / f"{device.uuid.replace('/', '_')}{SUFFIX}"


def _prepare(folder: Path) -> None:
    """The folder that all users may make files in; whoever comes first makes it, with that mode from the beginning.

    One that an earlier version had no time to open to all, its owner opens; one that a site has made is left as it is.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            made.chmod(MODE)
            # In the place of an empty folder, too: that is as good as nothing.
            made.rename(folder)
        except OSError:
            made.rmdir()
            if not folder.is_dir():
                raise
    found = folder.stat()
    is_ours = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWOTH | stat.S_ISGID)
    if is_ours and all(file.suffix == SUFFIX for file in folder.iterdir()):
        folder.chmod(MODE)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """The file for reading and writing, made for all users. Linux refuses O_CREAT on others' files in such folders."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(file, flags)
    except FileNotFoundError:
        _make(file)
        handle = os.open(file, flags)
    try:
        found = os.fstat(handle)
        if found.st_uid == os.getuid() and found.st_mode & 0o666 != 0o666:  # left so by an earlier version
            os.fchmod(handle, 0o666)
        yield handle
    finally:
        os.close(handle)


def _make(file: Path) -> None:
    """An empty file that all users may write, with that mode from the beginning; nothing if it is there by then."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=SUFFIX, dir=file.parent)
    try:
        os.fchmod(handle, 0o666)
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(name)
    finally:
        os.close(handle)
        Path(name).unlink()


def _write(handle: int, text: dict[str, Any]) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(text).encode()[:_TEXT_BYTES], 0)


@contextlib.contextmanager
def _looked_at(file: Path) -> Iterator[int]:
    """The file for reading. Any user may have put it there: a link is not followed, a pipe not waited for."""
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(file: Path) -> dict[str, Any]:
    """The file's text; empty where there is none, or another process is writing it."""
    try:
        with _looked_at(file) as handle:
            found = json.loads(os.read(handle, _TEXT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shown(text: object) -> str:
    """What another user wrote, fit for a terminal and one line."""
    return printable(str(text))[:_SHOWN]
