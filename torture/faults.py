"""Build, load and arm the fault switch `faults.c`, which makes chosen system calls fail."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EMFILE", "EACCES")}


def compiler() -> str | None:
    """Path of a C compiler, None if this machine has none."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile the shared object into `folder` and return its path."""
    made = folder / "faults.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"]
    subprocess.run(list(map(str, command)), check=True)
    return made


def environment(library: Path, **fault: object) -> dict[str, str]:
    """An environment in which every process loads the switch, armed if `at`, `errno`, `lasts`, `below` are given."""
    armed = {f"FAULT_{name.upper()}": str(value) for name, value in fault.items()}
    return os.environ | {"LD_PRELOAD": str(library)} | armed


class Switch:
    """The switch in this process, which must have been started with `environment`."""

    def __init__(self, below: Path) -> None:
        self.below = str(below).encode()
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "fault_arm"):
            sys.exit("start this process with LD_PRELOAD=faults.so")
        self._library.fault_seen.restype = ctypes.c_long

    def arm(self, at: int, number: int, *, lasts: bool = False) -> None:
        """Make call `at` (from 1) fail with errno `number`, and all later ones if it `lasts`; at = 0 only counts."""
        self._library.fault_arm(ctypes.c_long(at), number, int(lasts), self.below)

    def disarm(self) -> int:
        """Stop all faults. Returns the number of calls since `arm` that could have failed."""
        seen = int(self._library.fault_seen())
        self._library.fault_arm(ctypes.c_long(0), 0, 0, b"")
        return seen
