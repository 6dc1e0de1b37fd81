"""The switch of `faults.c`: build it, load it, arm it. Knows calls and errors; knows nothing of samples."""

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
    """A C compiler, if this machine has one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """The shared object, made in `folder`."""
    made = folder / "faults.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"]
    subprocess.run(list(map(str, command)), check=True)
    return made


def environment(library: Path, **fault: object) -> dict[str, str]:
    """An environment in which every process loads the switch, armed if `at`, `errno`, `lasts`, `below` are given."""
    armed = {f"FAULT_{name.upper()}": str(value) for name, value in fault.items()}
    return os.environ | {"LD_PRELOAD": str(library)} | armed


class Switch:
    """The switch inside this process, which must have been started with it."""

    def __init__(self, below: Path) -> None:
        self.below = str(below).encode()
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "fault_arm"):
            sys.exit("start this process with LD_PRELOAD=faults.so")
        self._library.fault_seen.restype = ctypes.c_long

    def arm(self, at: int, number: int, *, lasts: bool = False) -> None:
        """Call `at` (from 1) fails with errno `number`, and all later ones too if it `lasts`; at = 0 counts only."""
        self._library.fault_arm(ctypes.c_long(at), number, int(lasts), self.below)

    def disarm(self) -> int:
        """No more faults; the number of calls that could have failed since `arm`."""
        seen = int(self._library.fault_seen())
        self._library.fault_arm(ctypes.c_long(0), 0, 0, b"")
        return seen
