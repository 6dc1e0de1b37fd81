"""Downloads from a server on this machine that breaks off, goes silent, refuses, redirects and sends wrong bytes."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.models import downloads
from virnucpro_core.models.downloads import (
    FolderFiles,
    NetworkError,
    WebFiles,
    _range,
    bytes_here,
    fetch_files,
    files_from,
    shown,
)
from virnucpro_core.models.sources import SOURCES, RemoteFile, Source

BYTES = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
PINNED = RemoteFile("model.safetensors", len(BYTES), hashlib.sha256(BYTES).hexdigest())
UNPINNED = RemoteFile("config.json")
READ = downloads.ARRIVING_BYTES
SOURCE = Source("esm2", "huggingface.co", "facebook/tiny", "a" * 40, "MIT", len(BYTES), (UNPINNED, PINNED))

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Server:
    """A server whose answers are a list; the last one is repeated. `asked`: (path, Range) of each request."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.asked.append((request.path, asked))
        content = b'{"model_type": "esm"}' if request.path.endswith("config.json") else BYTES
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1] if self.answers else whole
        answer(request, content)


def send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None, **headers: str
) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def start_of(request: BaseHTTPRequestHandler) -> int:
    return int(request.headers.get("Range", "bytes=0-")[6:-1])


def whole(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """As a good server: the range that was asked for."""
    start = start_of(request)
    if start >= len(content):
        send(request, 416, b"", Content_Range=f"bytes */{len(content)}")
    elif "Range" in request.headers:
        end = len(content) - 1
        send(request, 206, content[start:], Content_Range=f"bytes {start}-{end}/{len(content)}")
    else:
        send(request, 200, content)


def broken_after(count: int) -> Answer:
    """`count` bytes of what was announced, then the connection ends."""

    def answer(request: BaseHTTPRequestHandler, content: bytes) -> None:
        start = start_of(request)
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        part = content[start : start + count]
        send(request, 206 if start else 200, part, len(content) - start, **(headers if start else {}))
        request.close_connection = True

    return answer


def silent_after(count: int) -> Answer:
    """`count` bytes, then nothing, while the connection stays open."""

    def answer(request: BaseHTTPRequestHandler, content: bytes) -> None:
        send(request, 200, content[:count], len(content))
        request.wfile.flush()
        threading.Event().wait(1.0)
        request.close_connection = True

    return answer


def status(code: int, **headers: str) -> Answer:
    return lambda request, content: send(request, code, b"no", **headers)


@pytest.fixture
def server() -> Iterator[Server]:
    known = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                known.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that closes the connection early is no news."""

    web = Quiet(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    known.address = f"http://127.0.0.1:{web.server_port}"
    yield known
    web.shutdown()
    web.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def web(server: Server, **changes: object) -> WebFiles:
    return WebFiles(**({"endpoint": server.address, "pauses": (0.01,), "silence": 0.3} | changes))


def get(server: Server, folder: Path, file: RemoteFile = PINNED, **changes: object) -> Path:
    return web(server, **changes).get("tiny", SOURCE, file, folder)


def test_files_come_from_the_pinned_revision_with_progress(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    files = web(server, on_bytes=lambda *step: steps.append(step))
    fetch_files("tiny", SOURCE, tmp_path / "new", files)
    assert (tmp_path / "new/model.safetensors").read_bytes() == BYTES
    base = f"/facebook/tiny/resolve/{'a' * 40}"
    assert server.asked == [(f"{base}/config.json", ""), (f"{base}/model.safetensors", "")]
    assert steps[0] == ("config.json", 21, 21)
    assert steps[-1] == ("model.safetensors", len(BYTES), len(BYTES))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]
    server.asked.clear()
    fetch_files("tiny", SOURCE, tmp_path / "new", files)
    assert [path for path, _ in server.asked] == [f"{base}/config.json"]  # its digest is not pinned


def test_a_broken_download_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    """More breaks than pauses: each attempt brings bytes, so the pauses start again."""
    server.answers = [broken_after(70_000)] * 3 + [whole]
    assert get(server, tmp_path).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == ["", *(f"bytes={READ * n}-" for n in (1, 2, 3))]


def test_the_next_command_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.answers = [broken_after(100_000), status(503)]
    with pytest.raises(
        NetworkError, match=r"cannot download model\.safetensors: HTTP 503 .*what is here is kept"
    ) as e:
        get(server, tmp_path)
    assert e.value.exit_code == 3
    assert not (tmp_path / PINNED.name).exists()
    assert bytes_here(tmp_path) == READ
    server.answers, server.asked = [whole], []
    assert get(server, tmp_path).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == [f"bytes={READ}-"]


def test_a_silent_server_is_left_and_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [silent_after(50_000), whole]
    assert get(server, tmp_path).read_bytes() == BYTES
    assert len(server.asked) == 2


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again_after_a_pause(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    server.answers = [status(code), status(code, Retry_After="7"), status(code, Retry_After="900"), whole]
    assert get(server, tmp_path, pauses=(1.0, 2.0, 4.0)).read_bytes() == BYTES
    assert waits == [1.0, 7.0, 60.0]


@pytest.mark.parametrize(
    ("code", "words"),
    [(401, "wants a login"), (403, "refuses it"), (404, "does not have it"), (418, "unexpected answer")],
)
def test_a_refusal_is_final_and_said_in_words(server: Server, tmp_path: Path, code: int, words: str) -> None:
    server.answers = [status(code)]
    with pytest.raises(WeightsError, match=rf"{words} \(HTTP {code}\).*--from DIR\|URL") as error:
        get(server, tmp_path)
    assert error.value.exit_code == 2
    assert len(server.asked) == 1
    assert not (tmp_path / PINNED.name).exists()


def test_wrong_bytes_are_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    def changed(request: BaseHTTPRequestHandler, content: bytes) -> None:
        whole(request, content[:-1] + bytes([content[-1] ^ 1]))

    server.answers = [changed]
    with pytest.raises(WeightsError, match="does not have the pinned sha256"):
        get(server, tmp_path)
    server.answers = [lambda request, content: send(request, 200, content + b"x")]
    with pytest.raises(WeightsError, match="has 300,001 bytes, 300,000 are expected"):
        get(server, tmp_path)

    def endless(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(40):
            request.wfile.write(content)
        request.close_connection = True

    server.answers = [endless]
    with pytest.raises(WeightsError, match="has more than the expected 300,000 bytes"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.answers = [broken_after(100_000), lambda request, content: send(request, 200, content)]
    assert get(server, tmp_path).read_bytes() == BYTES


def test_another_range_than_asked_for_is_not_appended(server: Server, tmp_path: Path) -> None:
    def wrong(request: BaseHTTPRequestHandler, content: bytes) -> None:
        send(request, 206, content[5:], Content_Range=f"bytes 5-{len(content) - 1}/{len(content)}")

    server.answers = [broken_after(100_000), wrong]
    assert get(server, tmp_path).read_bytes() == BYTES  # what is here already is compared
    (tmp_path / PINNED.name).unlink()

    def later(request: BaseHTTPRequestHandler, content: bytes) -> None:
        place = f"bytes {READ + 9}-{len(content) - 1}/{len(content)}"
        send(request, 206, content[READ + 9 :], Content_Range=place)

    server.answers, server.asked = [broken_after(100_000), later, whole], []
    assert get(server, tmp_path, pauses=(0.01, 0.01)).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == ["", f"bytes={READ}-", ""]


def login_page(status: int = 200, **headers: str) -> Answer:
    return lambda request, content: send(request, status, b"please log in here", **headers)


def without_length(body: bytes) -> Answer:
    """An answer that ends where the connection ends."""

    def answer(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True

    return answer


def half(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """A server with a shorter file of this name."""
    whole(request, content[: len(content) // 2])


def half_of_all(request: BaseHTTPRequestHandler, content: bytes) -> None:
    start = start_of(request)
    half = len(content) // 2
    send(request, 206, content[start:half], Content_Range=f"bytes {start}-{half - 1}/{half}")


def other_bytes(request: BaseHTTPRequestHandler, content: bytes) -> None:
    whole(request, content[:READ] + bytes(len(content) - READ))


def other_from_the_start(request: BaseHTTPRequestHandler, content: bytes) -> None:
    send(request, 200, bytes(len(content)))


WRONG_ANSWERS: list[tuple[list[Answer], str]] = [
    ([login_page()], "has 18 bytes, 300,000 are expected"),
    ([status(416), login_page()], "has 18 bytes, 300,000 are expected"),
    ([login_page(Content_Type="text/html; charset=utf-8")], "sent a web page, and not model"),
    ([login_page(206, Content_Range="bytes 65536-65553/65554")], "has 65,554 bytes, 300,000 are expected"),
    ([half], "has 150,000 bytes, 300,000 are expected"),
    ([half_of_all], "has 150,000 bytes, 300,000 are expected"),
    ([other_bytes], "does not have the pinned sha256"),
    ([other_from_the_start], "has other bytes there than those that are here already"),
    ([without_length(b"please log in here")], "has other bytes there"),
    ([without_length(BYTES + b"x")], "has more than the expected 300,000 bytes"),
    ([login_page(206, Content_Range="bytes 9-26/27"), login_page()], "has 27 bytes, 300,000 are expected"),
    ([login_page(206, Content_Range="none"), login_page(206)], "sent a part, and the whole file was asked"),
]


@pytest.mark.parametrize(("answers", "line"), WRONG_ANSWERS)
def test_a_wrong_answer_deletes_nothing_of_an_earlier_download(
    server: Server, tmp_path: Path, answers: list[Answer], line: str
) -> None:
    server.answers = [broken_after(100_000), status(503)]
    with pytest.raises(NetworkError):
        get(server, tmp_path)
    server.answers, server.asked = answers, []
    with pytest.raises(WeightsError, match=line) as caught:
        get(server, tmp_path)
    assert f"the {READ:,} bytes of earlier answers are kept: check the network" in str(caught.value)
    assert (tmp_path / "model.safetensors.part").read_bytes() == BYTES[:READ]
    server.answers, server.asked = [whole], []
    assert get(server, tmp_path).read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == [f"bytes={READ}-"]


@pytest.mark.parametrize(("answers", "line"), WRONG_ANSWERS)
def test_nor_of_an_earlier_answer_of_the_same_command(
    server: Server, tmp_path: Path, answers: list[Answer], line: str
) -> None:
    server.answers = [broken_after(100_000), *answers]
    with pytest.raises(WeightsError, match=line):
        get(server, tmp_path, pauses=(0.01, 0.01))
    assert (tmp_path / "model.safetensors.part").read_bytes() == BYTES[:READ]


def test_a_wrong_folder_deletes_nothing_of_an_earlier_download(tmp_path: Path) -> None:
    part = tmp_path / "model.safetensors.part"
    part.write_bytes(BYTES[:READ])
    origin = tmp_path / "from/tiny/model.safetensors"
    origin.parent.mkdir(parents=True)
    for wrong, line in ((b"x", "has 1 bytes, 300,000 are expected"), (bytes(len(BYTES)), "pinned sha256")):
        origin.write_bytes(wrong)
        with pytest.raises(WeightsError, match=line):
            FolderFiles(tmp_path / "from").get("tiny", SOURCE, PINNED, tmp_path)
        assert part.read_bytes() == BYTES[:READ]
    origin.write_bytes(BYTES)
    assert FolderFiles(tmp_path / "from").get("tiny", SOURCE, PINNED, tmp_path).read_bytes() == BYTES
    assert not part.exists()


def test_a_complete_file_that_is_wrong_is_deleted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(bytes(len(BYTES)))
    with pytest.raises(WeightsError, match=r"pinned sha256 .*; its bytes were deleted; fetch it again"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == BYTES


@given(st.lists(st.integers(0, len(WRONG_ANSWERS) - 1), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_servers_answer_the_good_bytes_stay_and_the_end_is_good(
    server: Server, tmp_path_factory: pytest.TempPathFactory, wrong: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    (folder / "model.safetensors.part").write_bytes(BYTES[:READ])
    for number in wrong:
        server.answers, server.asked = WRONG_ANSWERS[number][0], []
        with pytest.raises(WeightsError):
            get(server, folder)
    server.answers, server.asked = [whole], []
    assert get(server, folder).read_bytes() == BYTES


def test_a_garbled_answer_is_said_in_words(server: Server, tmp_path: Path) -> None:
    def garbled(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\n" + content[:5] + b"\r\nzz\r\n")
        request.close_connection = True

    server.answers = [garbled]
    with pytest.raises(
        NetworkError, match=r"the connection failed: the answer is garbled; check the network"
    ):
        get(server, tmp_path)


def test_what_is_complete_but_has_no_name_yet_is_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(BYTES)
    assert get(server, tmp_path).read_bytes() == BYTES  # HTTP 416: nothing is missing
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.part").write_bytes(BYTES + b"x")
    assert get(server, tmp_path).read_bytes() == BYTES


def test_a_file_without_pinned_digest_is_not_pieced_together(server: Server, tmp_path: Path) -> None:
    (tmp_path / "config.json.part").write_bytes(b"{}")
    assert get(server, tmp_path, UNPINNED).read_bytes() == b'{"model_type": "esm"}'
    assert server.asked[0][1] == ""


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [status(302, Location=f"{server.address}/elsewhere?signature=secret"), whole]
    assert get(server, tmp_path).read_bytes() == BYTES
    assert [path for path, _ in server.asked][1] == "/elsewhere?signature=secret"
    server.answers = [status(302, Location="/again")]
    with pytest.raises(WeightsError, match="TooManyRedirects"):
        get(server, tmp_path)


def test_nobody_there_and_a_proxy_that_is_not_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        NetworkError, match=r"config\.json: the connection failed: Connection refused; check the network"
    ):
        WebFiles(endpoint="http://127.0.0.1:9", pauses=(0.0,)).get("tiny", SOURCE, UNPINNED, tmp_path)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(NetworkError, match=r"the proxy does not answer \(HTTPS_PROXY\): Connection refused"):
        get(server, tmp_path)
    monkeypatch.setenv("HTTP_PROXY", server.address)  # a proxy is asked for the whole address
    files = WebFiles(mirror="http://mirror.example/models")
    assert files.get("tiny", SOURCE, PINNED, tmp_path).read_bytes() == BYTES
    assert server.asked[-1][0] == "http://mirror.example/models/tiny/model.safetensors"


def test_a_mirror_is_an_address_or_a_folder(server: Server, tmp_path: Path) -> None:
    mirrored = files_from(f"{server.address}/mirror/")
    mirrored.get("tiny", SOURCE, PINNED, tmp_path)
    assert server.asked == [("/mirror/tiny/model.safetensors", "")]
    here = tmp_path / "here"
    (here / "tiny").mkdir(parents=True)
    with pytest.raises(
        WeightsError, match=r"here/tiny/model\.safetensors: no such file; put the files of https"
    ):
        files_from(str(here)).get("tiny", SOURCE, PINNED, tmp_path)
    (here / "tiny/model.safetensors").write_bytes(BYTES)
    assert isinstance(files_from(str(here)), FolderFiles)
    assert files_from(str(here)).get("tiny", SOURCE, PINNED, tmp_path).read_bytes() == BYTES
    (here / "tiny/model.safetensors").write_bytes(BYTES[:-1])
    (tmp_path / PINNED.name).unlink()
    with pytest.raises(WeightsError, match="has 299,999 bytes"):
        files_from(str(here)).get("tiny", SOURCE, PINNED, tmp_path)
    assert not list(tmp_path.glob("model*"))
    for place in ("ftp://host/x", str(tmp_path / "none")):
        with pytest.raises(UsageError, match="neither a folder nor an http"):
            files_from(place)


def test_addresses_of_the_publishers() -> None:
    files = WebFiles(endpoint="https://mirror.example/hf/")
    esm2, classifier = SOURCES["esm2-3b"], SOURCES["virnucpro-500"]
    assert files.address("esm2-3b", esm2, esm2.files[0]) == (
        f"https://mirror.example/hf/facebook/esm2_t36_3B_UR50D/resolve/{esm2.revision}/config.json"
    )
    assert files.address("virnucpro-500", classifier, classifier.files[0]) == (
        f"https://raw.githubusercontent.com/Li-Jing-1997/VirNucPro/{classifier.revision}/500_model.pth"
    )
    assert shown("https://me:word@host:8/a/b?token=x") == "https://host:8/a/b"
    assert shown("me:word@host/a?token=x") == "host/a"


@given(st.text(max_size=30))
def test_any_content_range_is_read_or_refused(text: str) -> None:
    start, total = _range(text)
    assert start >= -1
    assert total is None or total >= 0
