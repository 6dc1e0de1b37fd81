"""The results beside the web UI: what is served, as what, and that nothing else can be reached."""

import html
import http.client
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.assets.conftest import NAME, Finished
from tests.support.live_platform import wait_until
from virnucpro_assets.web.results import results_app
from virnucpro_assets.web.server import check_port
from virnucpro_core.errors import UsageError
from virnucpro_core.results.folder import OPTIONAL_FILES, RESULT_FILES
from virnucpro_core.samples.inbox_state import InboxState, Row

ODD = ("../sample.json", "..%2fsample.json", "%2e%2e%2fsample.json", "..%5c..%5csample.json", "%00", ".", "..",
       "//etc/passwd", "%2fetc%2fpasswd", ".virnucpro-delivery.json", "report.html/", "REPORT.HTML", "%ff")  # fmt: skip


@contextmanager
def served(home: Path) -> Iterator[int]:
    """The port of a real server of the home's results, at the path of the web UI's."""
    app = Starlette(routes=[Mount("/results", app=results_app(home))])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, seconds=20, what="the server")
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to exactly this path: nothing is normalized on the way."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def test_results_are_served_as_they_are_and_nothing_else(finished: Finished, tmp_path: Path) -> None:
    home, results = finished.platform.folder, finished.sample.results
    base = f"/results/{NAME}/"
    (results / "mine.txt").write_text("not a result")
    present = [name for name in RESULT_FILES if name not in OPTIONAL_FILES]  # of reads, or open frames
    with served(home) as port:
        for name in present:
            status, headers, body = get(port, base + name)
            assert (status, body) == (200, (results / name).read_bytes())
            assert headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in headers["content-security-policy"]
            assert "allow-same-origin" not in headers["content-security-policy"]
            assert get(port, base + name, "HEAD")[::2] == (200, b"")
        kinds = {name: get(port, base + name)[1]["content-type"] for name in present}
        assert kinds["report.html"] == "text/html; charset=utf-8"
        assert kinds["contigs.tsv"] == "text/tab-separated-values; charset=utf-8"
        assert kinds["viral.fasta"] == "text/plain; charset=utf-8"
        assert kinds["run.json"] == "application/json"
        assert get(port, base + "contigs.tsv", Range="bytes=0-8")[2] == b"record_id"

        page = get(port, "/results/")[2]
        assert f'href="{NAME}/"'.encode() in page
        assert f'href="{NAME}/report.html"'.encode() in page
        status, headers, table = get(port, "/results/summary.tsv")
        assert (status, headers["content-type"]) == (200, "text/tab-separated-values; charset=utf-8")
        assert table.decode().splitlines()[1].startswith(f"{NAME}\tcalled\t")
        assert all(f'href="{name}"'.encode() in get(port, base)[2] for name in present)
        status, headers, _ = get(port, base.rstrip("/"))
        assert (status, headers["location"]) == (307, f"{NAME}/")

        for path in (
            *(base + odd for odd in ODD),
            base + "mine.txt",
            "/results/..%2f",
            "/results/absent/run.json",
        ):
            status, _, body = get(port, path)
            assert status == 404, path
            assert b"root:" not in body
        for method in ("POST", "PUT", "DELETE"):
            assert get(port, base + "report.html", method)[0] == 405


def test_a_run_of_the_inbox_has_a_page_of_its_own(finished: Finished, tmp_path: Path) -> None:
    home = finished.platform.folder
    odd = "<b>run & 7</b>"
    with InboxState(home) as state:
        state.rows[odd.encode()] = Row(odd.encode(), kind="taken", samples=f"{NAME} removed_since")
        state.rows[b"alone.fa"] = Row(b"alone.fa", kind="taken", samples=NAME)
    with served(home) as port:
        page = get(port, "/results/")[2].decode()
        assert "alone.fa" not in page
        address = html.unescape(re.findall(r'href="(\?entry=[^"]+)"', page)[0])
        status, headers, body = get(port, f"/results/{address}")
        assert status == 200
        assert "sandbox" in headers["content-security-policy"]
        assert "<bdi>&lt;b&gt;run &amp; 7&lt;/b&gt;</bdi>: 1 sample" in body.decode()
        table = html.unescape(re.findall(r'href="(summary.tsv[^"]+)"', body.decode())[0])
        lines = get(port, f"/results/{table}")[2].decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["sample", NAME]
        for entry in ("absent", "alone.fa"):
            assert get(port, f"/results/?entry={entry}")[0] == 404


def test_no_link_leads_out_of_the_results(finished: Finished, tmp_path: Path) -> None:
    home, results = finished.platform.folder, finished.sample.results
    (tmp_path / "secret").write_text("secret")
    (results / "report.html").unlink()
    (results / "report.html").symlink_to(tmp_path / "secret")
    (results / "viral.fasta").unlink()
    os.mkfifo(results / "viral.fasta")
    (home / "samples" / "elsewhere").symlink_to(tmp_path)
    moved = tmp_path / "moved"
    finished.sample.results.rename(moved)
    with served(home) as port:
        assert get(port, f"/results/{NAME}/report.html")[0] == 404
        assert get(port, "/results/elsewhere/secret")[0] == 404
        results.symlink_to(moved)
        for name in RESULT_FILES:
            assert get(port, f"/results/{NAME}/{name}")[0] == 404, name
        results.unlink()
        moved.rename(results)
        found = {name: get(port, f"/results/{NAME}/{name}")[0] for name in RESULT_FILES}
    assert {name for name, status in found.items() if status == 404} == {
        "report.html",
        "viral.fasta",
        *OPTIONAL_FILES,
    }


def test_a_busy_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: Any = other.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"127.0.0.1:{port}: another program listens there; give another"
        ):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(UsageError, match="cannot listen there"):
        check_port("192.0.2.1", port)
