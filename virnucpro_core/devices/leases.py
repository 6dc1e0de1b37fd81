"""Reserves each GPU of a machine for one process: a lease is a lock on a file named after the UUID of the device.

All users, homes and containers that share the GPUs must use the same folder for these files. The operating system
releases the lock when the process ends. The file says which process holds the lease, or that the device failed.
This module does not start CUDA.
"""

import contextlib
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
from virnucpro_core.files.locks import same_file, try_lock

FOLDER = Path("/var/tmp/virnucpro-leases")  # noqa: S108 - shared by all users, who may take any lease
POLL_SECONDS = 0.2
MARK_SECONDS = 3600.0
_TEXT_BYTES = 4096
_SHOWN = 200
MODE, SUFFIX = 0o1777, ".lease"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a device was marked as failed, and when (seconds since 1970)."""

    reason: str
    since: float


@dataclass(slots=True)
class ProcessDevice:
    """The one device that this process computes on.

    `narrow(uuid)` makes it the only device that CUDA sees; it is called before CUDA starts. `lost` says why the device
    failed; "" if it works.
    """

    narrow: Callable[[str], None]
    uuid: str = ""
    lost: str = ""
    kept: contextlib.ExitStack | None = None
    kept_device: Device | None = None

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep the first lease taken in the block until the block ends. A nested block does nothing."""
        if self.kept is not None:
            yield
            return
        with contextlib.ExitStack() as kept:
            self.kept = kept
            try:
                yield
            finally:
                self.kept, self.kept_device = None, None


@dataclass(frozen=True, slots=True)
class Leases:
    """Leases on `devices`; rank i prefers device i. All processes that share a device must use the same folder."""

    folder: Path
    devices: Sequence[Device]
    process: ProcessDevice

    @contextlib.contextmanager
    def held(self, rank: int, *, needed: Callable[[], bool]) -> Iterator[Device | None]:
        """Reserve a device during the block. Waits while another process holds it; yields None if no longer `needed()`.

        It is the device of the rank, or any healthy device if that one failed. If this process already started CUDA on
        a device, it is that device. Raises DeviceError if no device is healthy, DeviceLostError if this process lost
        its device and only a new process can continue.
        """
        with contextlib.ExitStack() as closing:
            device = None if self.process.lost else self.process.kept_device
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
            if device is not None and self.process.kept is not None:
                self.process.kept_device = device
                self.process.kept.push(closing.pop_all())
            yield device

    def candidates(self, rank: int) -> list[Device]:
        """The devices that the rank may use now, the best first. Raises as `held`."""
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
                "every visible GPU failed within the last hour",
                where=self.folder,
                remedy="see `virnucpro doctor`; use them again with `virnucpro doctor --clear-failed`",
            )
        if self.process.uuid:
            mine = [d for d in healthy if d.uuid == self.process.uuid]
            if not mine:
                raise DeviceLostError(
                    f"{self.process.uuid} failed after this process began to use it",
                    remedy="run the same command again",
                )
            return mine
        own = self.devices[rank]
        return [own] if own in healthy else healthy[::-1]  # the last devices are the most likely to be free

    def mark_failed(self, device: Device, reason: str) -> None:
        """Mark the device as failed: no process gets it for MARK_SECONDS. Called by the holder of its lease."""
        with disk_errors(self.folder), _opened(self._file(device)) as handle:
            _write(handle, {"failed": reason, "since": time.time()})

    def clear(self, device: Device) -> bool:
        """Remove the mark that the device failed. Returns whether it was marked."""
        if self.failure(device) is None:
            return False
        with disk_errors(self.folder), _opened(self._file(device)) as handle:
            _write(handle, {})
        return True

    def failure(self, device: Device) -> Failure | None:
        """Why the device is marked as failed; None if it may be used."""
        text = _read(self._file(device))
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            found = Failure(_shown(text["failed"]), float(text["since"]))
            return found if abs(time.time() - found.since) < MARK_SECONDS else None
        return None

    def holder(self, device: Device) -> str:
        """Which process holds the device's lease now; "" if none does."""
        file = self._file(device)
        with contextlib.suppress(OSError), _opened_to_read(file) as handle:
            if not try_lock(handle, shared=True):
                return _shown(_read(file).get("holder", "holder unknown"))
        return ""

    def _take(self, device: Device, closing: contextlib.ExitStack) -> bool:
        with contextlib.ExitStack() as attempt:
            file = self._file(device)
            handle = attempt.enter_context(_opened(file))
            if not try_lock(handle):
                return False
            # Before we got the lock, its last holder may have marked the device, or the file may have been deleted.
            if self.failure(device) is not None or not same_file(file, handle):
                return False
            who = f"process {os.getpid()} of user {os.getuid()} on {socket.gethostname()}"
            _write(handle, {"holder": who, "since": time.time()})
            closing.push(attempt.pop_all())
        return True

    def _file(self, device: Device) -> Path:
        return self.folder / f"{device.uuid.replace('/', '_')}{SUFFIX}"


def _prepare(folder: Path) -> None:
    """Create the folder, in which all users may create files. It has this mode from the moment it appears.

    If an earlier version left the folder closed to other users, its owner opens it. A folder that an administrator made
    is not changed.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            made.chmod(MODE)
            # This also replaces an existing empty folder.
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
    """Open the file to read and write; create it for all users if it is missing.

    O_CREAT is not used: in such folders Linux refuses it for files of other users.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(file, flags)
    except FileNotFoundError:
        _make(file)
        handle = os.open(file, flags)
    try:
        found = os.fstat(handle)
        if found.st_uid == os.getuid() and found.st_mode & 0o666 != 0o666:  # created by an earlier version
            os.fchmod(handle, 0o666)
        yield handle
    finally:
        os.close(handle)


def _make(file: Path) -> None:
    """Create an empty file that all users may write, with this mode from the start. Does nothing if the file exists."""
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
def _opened_to_read(file: Path) -> Iterator[int]:
    """Open the file to read. Any user may have created it, so links are not followed and a pipe does not block."""
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(file: Path) -> dict[str, Any]:
    """The JSON content of the file; empty if it is missing, or another process is writing it."""
    try:
        with _opened_to_read(file) as handle:
            found = json.loads(os.read(handle, _TEXT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shown(text: object) -> str:
    """Text that another user wrote, made safe for one line of a terminal."""
    return printable(str(text))[:_SHOWN]
