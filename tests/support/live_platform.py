"""The platform as a person meets it: the web UI and the daemon on a free loopback port, in a home of their own.

Run as a program, it registers one sample and materializes its chunks and translations.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.support import ROOT

# Dagster may start its code server anew while it shuts down: that one ends after 45 s without a heartbeat.
END_SECONDS = 90
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Site:
    """A VIRNUCPRO_HOME of its own, in the demo profile, with `gpus` ranks."""

    home: Path
    gpus: int = 2
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "VIRNUCPRO_HOME": str(self.home),
            "DAGSTER_HOME": str(self.home / "dagster"),
            "VIRNUCPRO_PROFILE": "demo",
            "VIRNUCPRO_CHUNK_SIZE": "300",
            "VIRNUCPRO_GPUS": str(self.gpus),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            **self.extra,
        }

    def run(self, *arguments: str) -> None:
        """Run this Python with `arguments` at this site; its output is shown if it fails."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    def processes(self) -> list[psutil.Process]:
        """All other living processes of this home: it is in their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("VIRNUCPRO_HOME") == str(self.home)
                if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@dataclass(frozen=True, slots=True)
class Server:
    """A web UI that answers at `url`."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of a GraphQL answer."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        # Loopback only: a proxy of the environment is none of its business.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            body: dict[str, Any] = json.load(answer)
        assert "errors" not in body, body["errors"]
        return dict(body["data"])


@contextlib.contextmanager
def web_ui(
    site: Site,
    *words: str,
    folder: Path = ROOT,
    start: Sequence[str] = ("-m", "virnucpro_assets.cli.main"),
    prefix: str = "",
) -> Iterator[Server]:
    """`virnucpro ui`, with `words` behind it, at the site; at the end of the block none of its processes is left.

    folder: where the user stands; start: how Python is told to start the program; prefix: VIRNUCPRO_URL_PREFIX.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server, log = Server(f"http://127.0.0.1:{port}{prefix}"), site.home / "ui.log"
    command = (*start, "ui", "--port", str(port), *words)
    with started(site, *command, log=log, folder=folder) as process:
        wait_until(lambda: _loaded(server, process), seconds=240, what=f"the web UI ({log})")
        yield server


@contextlib.contextmanager
def started(site: Site, *command: str, log: Path, folder: Path = ROOT) -> Iterator["subprocess.Popen[bytes]"]:
    """`python COMMAND...` at the site; at the end of the block none of the site's processes is left.

    Raises AssertionError if one stays for END_SECONDS after it was asked to end; it is killed then.
    """
    site.home.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        # A session of its own: the daemon and the code server outlive a parent that is killed alone.
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *command],
            env=site.environment,
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            wait_until(
                lambda: process.poll() is not None and not site.processes(),
                seconds=END_SECONDS,
                what="the end",
            )
        finally:
            for left in site.processes():
                with contextlib.suppress(psutil.Error):
                    left.kill()
            process.wait()


def wait_until(condition: Callable[[], T], *, seconds: float, what: str) -> T:
    """The condition's first true value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)
    return value


def _loaded(server: Server, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the web UI ended by itself"
    try:
        found = server.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return bool(found["repositoriesOrError"].get("nodes"))


def prepare(name: str, fasta: Path, shard_rows: int) -> None:
    """Register a sample in the environment's home and materialize what comes before the encoders."""
    from virnucpro_assets.platform.instance import open_instance  # noqa: PLC0415 - reads the site's environment
    from virnucpro_assets.platform.resource import platform_from_environment  # noqa: PLC0415
    from virnucpro_assets.running.runs import run_task  # noqa: PLC0415
    from virnucpro_assets.running.tasks import Task  # noqa: PLC0415
    from virnucpro_core.samples.sample import register  # noqa: PLC0415

    platform = platform_from_environment()
    register(platform.folder, name, [fasta], platform.sample_settings(shard_rows=shard_rows))
    with open_instance() as instance:
        instance.add_dynamic_partitions("sample", [name])
    outcome = run_task(Task("sequences", (name,), driver=name))
    assert not outcome.failure, outcome.failure


if __name__ == "__main__":
    prepare(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
