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
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virnucpro_core.devices.visible import Device
from virnucpro_core.errors import DeviceError, DeviceLostError
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.files.locks import same_file

FOLDER = Path("/var/tmp/virnucpro-leases")  # noqa: S108 - one for all users, who could hold any lease anyway
POLL_SECONDS = 0.2
MARK_SECONDS = 3600.0
_TEXT_BYTES = 4096
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
    kept: contextlib.ExitStack | None = None
    kept_device: Device | None = None

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """The first device that is held inside the block stays held until it ends; a block in a block is part of it."""
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
        with contextlib.suppress(KeyError, TypeError, ValueError):
            found = Failure(str(text["failed"]), float(text["since"]))
            return found if time.time() - found.since < MARK_SECONDS else None
        return None

    def holder(self, device: Device) -> str:
        """Who computes on the device now; "" if nobody does."""
        file = self._file(device)
        with contextlib.suppress(FileNotFoundError), file.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return str(_read(file).get("holder", "holder unknown"))
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
        return self.folder / f"{device.uuid.replace('/', '_')}.lease"


def _prepare(folder: Path) -> None:
    """The folder that all users may make files in; whoever comes first makes it."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """The file for reading and writing, made for all users. Linux refuses O_CREAT on others' files in such folders."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(file, flags)
    except FileNotFoundError:
        try:
            handle = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            handle = os.open(file, flags)
        else:
            os.fchmod(handle, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, text: dict[str, Any]) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(text).encode()[:_TEXT_BYTES], 0)


def _read(file: Path) -> dict[str, Any]:
    """The file's text; empty where there is none, or another process is writing it."""
    try:
        with file.open("rb") as stream:
            found = json.loads(stream.read(_TEXT_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
