"""`virnucpro` without its start time: a process that has imported torch and Dagster forks one for each command.

Run as a program with the path of a socket, it is that process. CLIENT is what stands in the place of `virnucpro`: it
sends arguments, folder, variables and its three standard files, and ends with the code that comes back.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
words = sys.argv[1:]
if words[:1] == ["predict"]:
    words.append("--check")
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    said = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(said).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(said)
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


@contextlib.contextmanager
def quick_program(folder: Path) -> Iterator[Path]:
    """Yields a folder for PATH. Its `virnucpro` runs `predict` with --check, and everything else as it is typed."""
    folder.mkdir()
    address = str(folder / "socket")
    program = folder / "virnucpro"
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield folder
        finally:
            server.terminate()


def serve(address: str) -> None:
    """Fork a process for each connection, until it is terminated."""
    import dagster  # noqa: F401, PLC0415
    import torch  # noqa: F401, PLC0415

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    _become(connection)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(-1, os.WNOHANG)


def _become(connection: socket.socket) -> None:
    """Be the command that the client asks for, and never return."""
    from virnucpro_assets.cli.main import main  # noqa: PLC0415

    length, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        words, folder, variables = json.loads(stream.read(int.from_bytes(length, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["virnucpro", *words]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
