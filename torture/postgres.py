"""Start a private PostgreSQL server: on loopback, in a temporary folder, with a random password; removed afterwards."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

USER, DATABASE, SUPERUSER_ID = "virnucpro", "dagster", 0
STORAGE = """
storage:
  postgres:
    postgres_db:
      scheme: postgresql+psycopg2
      hostname: 127.0.0.1
      port: {port}
      db_name: {database}
      username: {{env: VIRNUCPRO_PG_USER}}
      password: {{env: VIRNUCPRO_PG_PASSWORD}}
"""


@contextlib.contextmanager
def postgres_storage(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a server. Yields the `storage` block for dagster.yaml and the environment that it refers to.

    If root runs this, the server runs as the user `postgres`.
    """
    folder.mkdir(parents=True)
    password, data = secrets.token_hex(16), folder / "data"
    (folder / "password").touch(0o600)
    (folder / "password").write_text(password)
    if os.geteuid() == SUPERUSER_ID:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
        for parent in folder.parents[:-1]:
            if parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    _run("initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--pwfile", folder / "password")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
    _run("pg_ctl", "-D", data, "-l", folder / "server.log", "-o", options, "-w", "start")
    try:
        environment = {"VIRNUCPRO_PG_USER": USER, "VIRNUCPRO_PG_PASSWORD": password}
        _run("createdb", "-h", "127.0.0.1", "-p", port, "-U", USER, DATABASE, password=password)
        yield STORAGE.format(port=port, database=DATABASE), environment
    finally:
        _run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def _run(program: str, *words: object, password: str = "") -> None:
    """Run one of PostgreSQL's programs. Its error output is shown if it fails."""
    found = shutil.which(program) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))
    switch = ["runuser", "-u", "postgres", "--"] if os.geteuid() == SUPERUSER_ID else []
    done = subprocess.run(
        [*switch, found, *map(str, words)],
        env=os.environ | {"PGPASSWORD": password},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the server would inherit a pipe and keep it open
        stderr=subprocess.DEVNULL,
        check=False,
        cwd="/",
    )
    if done.returncode:
        raise RuntimeError(f"{program} ended with code {done.returncode}; see the log beside the data folder")
