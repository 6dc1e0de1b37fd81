"""Runs the web UI with the results beside it, and Dagster's daemon, until interrupted.

This process is the web server. Its children are the code server, which loads the definitions, and the daemon. They end
with it.
"""

import contextlib
import errno
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import uvicorn
import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.routing import Mount

from virnucpro_assets.platform.instance import begin_event_log, open_instance
from virnucpro_assets.platform.resource import RESULTS
from virnucpro_assets.web.results import results_app
from virnucpro_core.errors import UsageError, VirnucproError

DEFINITIONS = "virnucpro_assets.definitions"
END_SECONDS = 60
LIVE_MILLISECONDS = 2000


@dataclass(frozen=True, slots=True)
class Served:
    """What `virnucpro ui` serves. prefix: the path below which a proxy shows it, such as `/virnucpro`; "" for none."""

    host: str
    port: int
    home: Path
    prefix: str = ""
    read_only: bool = False
    daemon: bool = True
    verbose: bool = False

    @property
    def url(self) -> str:
        """The address of the web UI."""
        return f"http://{self.host}:{self.port}{self.prefix}"


def check_port(host: str, port: int) -> None:
    """Raises UsageError if nobody can listen there, because another program does."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what, remedy = "another program listens there", "give another --port, or end that program"
        else:
            what, remedy = f"cannot listen there: {error.strerror or error}", "give another --host or --port"
        raise UsageError(what, where=f"{host}:{port}", remedy=remedy) from error


def serve(served: Served) -> None:
    """Serve until SIGINT or SIGTERM. Raises VirnucproError if the daemon ends by itself."""
    level = "info" if served.verbose else "warning"
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with contextlib.ExitStack() as stack:
        instance = stack.enter_context(open_instance())
        begin_event_log(instance)
        workspace = stack.enter_context(_code_server(instance, level))
        daemon = stack.enter_context(_daemon(workspace, level)) if served.daemon else None
        context = stack.enter_context(
            WorkspaceProcessContext(
                instance,
                workspace_load_target=WorkspaceFileTarget([str(workspace)]),
                read_only=served.read_only,
                code_server_log_level=level,
            )
        )
        app = create_app_from_workspace_process_context(context, served.prefix, LIVE_MILLISECONDS)
        app.router.routes.insert(0, Mount(f"{served.prefix}{RESULTS}", app=results_app(served.home)))
        server = uvicorn.Server(uvicorn.Config(app, served.host, served.port, log_level=level))
        if daemon is not None:
            threading.Thread(target=_end_with, args=(daemon, server), daemon=True).start()
        sys.stderr.write(f"virnucpro: the web UI is at {served.url}, the inbox is {served.home / 'inbox'}\n")
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
        if daemon is not None and daemon.poll() is not None:
            raise VirnucproError(
                f"the daemon ended with code {daemon.returncode}",
                remedy="see above; start `virnucpro ui` again",
            )


@contextlib.contextmanager
def _code_server(instance: dg.DagsterInstance, level: str) -> Iterator[Path]:
    """Start the process that loads the definitions. Yields a workspace file that leads to it."""
    target = ModuleTarget(DEFINITIONS, None, str(Path.cwd()), DEFINITIONS)
    with (
        ProxyServerManager(instance, target, code_server_log_level=level) as servers,
        tempfile.TemporaryDirectory(prefix="virnucpro-ui-") as folder,
    ):
        file = Path(folder) / "workspace.yaml"
        file.write_text(yaml.dump({"load_from": list(servers.get_code_server_specs())}), encoding="utf-8")
        yield file


@contextlib.contextmanager
def _daemon(workspace: Path, level: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Dagster's daemon as a child, which is asked to end with the block."""
    command = [sys.executable, "-P", "-W", "ignore", "-m", "dagster._daemon", "run", "--log-level", level]
    process = subprocess.Popen([*command, "--workspace", str(workspace)])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with(daemon: "subprocess.Popen[bytes]", server: uvicorn.Server) -> None:
    daemon.wait()
    server.should_exit = True
