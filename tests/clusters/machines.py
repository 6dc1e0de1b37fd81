"""Machines of a pretend cluster on this one: each has its own network, processes, host name and /tmp; files are shared.

Made of Linux namespaces, without rights of root. The whole cluster lives inside one process tree that
`enclosed` starts: nothing of it can be reached from outside, and nothing of it outlives that process.
Knows nothing of Ray or Dagster.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

NETWORK = "10.77.0"
_PRIVATE = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
_BOOT = "hostname {name} && mount -t tmpfs tmpfs {temporary} && echo up && exec sleep infinity"


def enclosed(module: str, *arguments: str) -> list[str]:
    """Command line that runs a module as the first process of a world of its own, in which `Switch` works."""
    world = [
        "unshare",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    return [*world, sys.executable, "-m", module, *arguments]


def possible() -> bool:
    """Whether this system lets us make such a world."""
    command = [*enclosed("this")[:-3], "ip", "link", "add", "bridge", "type", "bridge"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


class Switch:
    """The network that the machines are plugged into; this process is on it too, as NETWORK.254."""

    def __init__(self) -> None:
        for command in (
            "ip link set lo up",
            "ip link add bridge type bridge",
            f"ip addr add {NETWORK}.254/24 dev bridge",
            "ip link set bridge up",
        ):
            subprocess.run(command.split(), check=True)


class Machine:
    """One machine on the switch, with its own address, host name and empty `temporary` folder."""

    def __init__(self, number: int, temporary: Path) -> None:
        self.number, self.name, self.address = number, f"machine-{number}", f"{NETWORK}.{number}"
        boot = _BOOT.format(name=self.name, temporary=temporary)
        self._outside = subprocess.Popen([*_PRIVATE, "sh", "-c", boot], stdout=subprocess.PIPE)
        assert self._outside.stdout is not None
        assert self._outside.stdout.readline() == b"up\n"
        [self._inside] = psutil.Process(self._outside.pid).children()
        plug, socket = f"plug{number}", f"socket{number}"
        for command in (
            f"ip link add {plug} type veth peer name {socket}",
            f"ip link set {plug} netns {self._inside.pid}",
            f"ip link set {socket} master bridge up",
        ):
            subprocess.run(command.split(), check=True)
        for command in (
            "ip link set lo up",
            f"ip addr add {self.address}/24 dev {plug}",
            f"ip link set {plug} up",
        ):
            subprocess.run(self.on(command.split()), check=True)

    def on(self, command: list[str]) -> list[str]:
        """The command line that runs a command on this machine."""
        return ["nsenter", f"--target={self._inside.pid}", "--net", "--mount", "--uts", "--pid", *command]

    def start(self, command: list[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
        """Run a command on this machine; what it says goes to `log`."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                self.on(command), stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options
            )

    def lose_power(self) -> None:
        """Every process of the machine ends at this moment, without a last word."""
        self._inside.kill()
        self._outside.wait()


def wait_for(log: Path, words: str, seconds: float) -> None:
    """Wait until a log holds the words. Raises TimeoutError with the log's end."""
    deadline = time.monotonic() + seconds
    while words not in log.read_text(errors="replace"):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{log.name} does not say {words!r}: {log.read_text(errors='replace')[-2000:]}"
            )
        time.sleep(0.3)
