"""Downloads the files of published models: resumes, retries, and compares size and sha256 while the bytes arrive.

A file is written as `NAME.part` and gets its final name only when it is complete and correct. What was downloaded
before a break is kept: the next attempt, or the next command, asks for the rest (HTTP byte ranges). Only files with a
pinned sha256 are resumed, because only these show whether the two parts belong together. An answer that cannot be of
this file is refused; it never deletes what an earlier answer brought. Where a server sends all from the start, the
bytes that are here already are compared, not replaced.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from virnucpro_core.errors import UsageError, WeightsError, printable
from virnucpro_core.files.digests import sha256_file
from virnucpro_core.models.arriving import BLOCK_BYTES, Arriving
from virnucpro_core.models.sources import HUGGING_FACE, RemoteFile, Source

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

ARRIVING_BYTES = 1 << 16  # of one read from the network; what a break leaves of a read is lost
# Seconds before each new attempt. The count starts again whenever an attempt brought new bytes.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_PAUSE = 60.0  # of those that a server asks for
CONNECT_SECONDS, SILENT_SECONDS = 15.0, 60.0
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_REFUSED = {
    401: "the server wants a login",
    403: "the server refuses it",
    404: "the server does not have it",
    407: "the proxy wants a login",
    410: "the server no longer has it",
    451: "the server refuses it",
}


class NetworkError(WeightsError):
    """The network or the server failed for now. The same command resumes the download."""

    exit_code = 3


# name of the file, bytes that are here, bytes of the whole file (None: unknown)
OnBytes = Callable[[str, int, int | None], None]


class Files(Protocol):
    """Where the files of a source come from."""

    def get(self, name: str, source: Source, file: RemoteFile, folder: Path) -> Path:
        """Bring `file` of the model `name` into `folder`, complete and correct. Raises WeightsError."""


def silent(file: str, done: int, total: int | None) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """A folder with the published files, each as `MODEL/FILE`."""

    root: Path
    on_bytes: OnBytes = silent

    def get(self, name: str, source: Source, file: RemoteFile, folder: Path) -> Path:
        """Copy the file. Raises WeightsError if it is missing or differs from the pinned one."""
        origin = self.root / name / file.name
        if not origin.is_file():
            raise WeightsError(
                "no such file", where=origin, remedy=f"put the files of {source.address} into {origin.parent}"
            )
        arriving = Arriving(file, folder / file.name, origin)
        arriving.resume()
        arriving.check_length(origin.stat().st_size)
        if arriving.done and sha256_file(origin) != file.sha256:
            arriving.refuse(f"{file.name} does not have the pinned sha256 {file.sha256}")
        arriving.start_again()
        with origin.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                arriving.add(block)
                self.on_bytes(file.name, arriving.done, file.size or origin.stat().st_size)
        return arriving.finish()


@dataclass(frozen=True, slots=True)
class WebFiles:
    """The publishers' own servers, or one mirror.

    endpoint: stands for huggingface.co, as the variable HF_ENDPOINT does. mirror: address of a folder that has each
    file as `MODEL/FILE`; "" for the publishers. pauses: seconds before each new attempt. silence: seconds without a
    byte after which a connection counts as broken. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY).
    """

    endpoint: str = HUGGING_FACE
    mirror: str = ""
    on_bytes: OnBytes = silent
    pauses: tuple[float, ...] = PAUSES
    silence: float = SILENT_SECONDS

    def get(self, name: str, source: Source, file: RemoteFile, folder: Path) -> Path:
        """Download the file, with new attempts after breaks. Raises NetworkError, WeightsError or UsageError."""
        address = self.address(name, source, file)
        arriving = Arriving(file, folder / file.name, shown(address))
        arriving.resume()
        pauses = iter(self.pauses)
        while True:
            before = arriving.done
            try:
                return self._attempt(address, arriving)
            except _TryAgainError as error:
                if arriving.done > before:
                    pauses = iter(self.pauses)
                pause = next(pauses, None)
                if pause is None:
                    raise NetworkError(
                        f"cannot download {file.name}: {error.why}",
                        where=shown(address),
                        remedy="check the network and run the same command again: what is here is kept; or give"
                        " --from DIR|URL, or carry the files over (`virnucpro models bundle`)",
                    ) from error
                pause = max(pause, min(error.wait, LONGEST_PAUSE))
                log.warning("%s: %s; next attempt in %.0f s", file.name, error.why, pause)
                time.sleep(pause)

    def address(self, name: str, source: Source, file: RemoteFile) -> str:
        """Where the file is."""
        if self.mirror:
            return f"{self.mirror.rstrip('/')}/{quote(name)}/{quote(file.name)}"
        if source.host == "huggingface.co":
            base = f"{self.endpoint.rstrip('/')}/{source.repository}/resolve/{source.revision}"
        else:
            base = f"https://raw.githubusercontent.com/{source.repository}/{source.revision}"
        return f"{base}/{quote(file.name)}"

    def _attempt(self, address: str, arriving: "Arriving") -> Path:
        """One request. Raises _TryAgainError after a break that may pass."""
        with _broken_connections(address), _session() as session:
            headers = {"Accept-Encoding": "identity"}  # the bytes as they are, so that ranges count them
            if arriving.done and not arriving.from_the_start:
                headers["Range"] = f"bytes={arriving.done}-"
            waits = (CONNECT_SECONDS, self.silence)
            with session.get(address, headers=headers, stream=True, timeout=waits) as response:
                if address.startswith("https:") and not response.url.startswith("https:"):
                    raise WeightsError(
                        f"redirected to {shown(response.url)}, which is not encrypted", where=shown(address)
                    )
                if not _is_complete(response, arriving):
                    for block in response.iter_content(ARRIVING_BYTES):
                        arriving.add(block)
                        self.on_bytes(arriving.file.name, arriving.at, arriving.total)
        if arriving.at < max(arriving.total or 0, arriving.done):
            whole = f" of {arriving.total:,}" if arriving.total is not None else ""
            raise _TryAgainError(f"the connection ended after {arriving.at:,}{whole} bytes")
        return arriving.finish()


class _TryAgainError(Exception):
    """An attempt failed, but the next one may succeed. wait: seconds that the server asks for."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        self.why, self.wait = why, wait
        super().__init__(why)


def _is_complete(response: "requests.Response", arriving: Arriving) -> bool:
    """Whether no byte is missing. Sets where the answer's bytes belong. Raises _TryAgainError, WeightsError."""
    arriving.begin_answer(0)
    status, whole = response.status_code, response.headers.get("Content-Length", "")
    if status == 416 and not arriving.from_the_start:  # the range begins behind the end
        arriving.begin_answer(arriving.done)
        if arriving.done == arriving.file.size:
            return True
        arriving.from_the_start = True
        raise _TryAgainError("the server says that it has fewer bytes than are here")
    if status in _AGAIN:
        asked = response.headers.get("Retry-After", "")
        raise _TryAgainError(f"HTTP {status} {response.reason}", float(asked) if asked.isdecimal() else 0.0)
    if status not in (200, 206):
        raise WeightsError(
            f"cannot download {arriving.file.name}: {_REFUSED.get(status, 'unexpected answer')} (HTTP {status})",
            where=arriving.origin,
            remedy="check the address and the proxy; or give --from DIR|URL, or carry the files over"
            " (`virnucpro models bundle`)",
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        arriving.refuse(f"the server sent a web page, and not {arriving.file.name}")
    if status == 206:
        start, total = _range(response.headers.get("Content-Range", ""))
        if not 0 <= start <= arriving.done:
            if arriving.from_the_start:
                arriving.refuse("the server sent a part, and the whole file was asked for")
            arriving.from_the_start = True
            raise _TryAgainError("the server sent another range than was asked for")
        arriving.begin_answer(start)
        if total is not None:
            arriving.check_length(total)
            arriving.total = total
        return False
    if whole.isdecimal() and "Content-Encoding" not in response.headers:
        arriving.check_length(int(whole))
        arriving.total = int(whole)
    return False


def _range(text: str) -> tuple[int, int | None]:
    """(first byte, length of the file) of a Content-Range such as `bytes 5-9/10`; (-1, None) for any other text."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal():
        return -1, None
    return int(start), int(total) if total.isdecimal() else None


@contextlib.contextmanager
def _broken_connections(address: str) -> Iterator[None]:
    """Turn the library's errors into _TryAgainError, or into a UsageError where no new attempt can help."""
    import requests  # noqa: PLC0415 - only a download needs the library

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise WeightsError(
            "the server's certificate is not accepted",
            where=shown(address),
            remedy="check the clock; behind a proxy with its own certificates, name their file in REQUESTS_CA_BUNDLE",
        ) from error
    except requests.exceptions.ProxyError as error:
        raise _TryAgainError(f"the proxy does not answer (HTTPS_PROXY): {_cause(error)}") from error
    except requests.exceptions.Timeout as error:
        raise _TryAgainError("no answer in time") from error
    except (requests.exceptions.InvalidProxyURL, requests.exceptions.TooManyRedirects) as error:
        raise WeightsError(
            f"cannot be reached ({type(error).__name__})",
            where=shown(address),
            remedy="check HTTPS_PROXY and --from",
        ) from error
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ) as error:
        raise UsageError(
            "not an address of a server", where=shown(address), remedy="give http(s)://..."
        ) from error
    except requests.exceptions.RequestException as error:
        silent_server = "timed out" in str(error)
        reason = "the server went silent" if silent_server else f"the connection failed: {_cause(error)}"
        raise _TryAgainError(reason) from error


def _cause(error: BaseException) -> str:
    """What the system said of a failed connection, such as `Connection refused`, below the library's own errors."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            waiting += [one.__context__, one.__cause__, getattr(one, "reason", None), *one.args]
    said = [e.strerror for e in seen if isinstance(e, OSError) and isinstance(e.strerror, str)]
    if not said and any(isinstance(e, ValueError) for e in seen):  # a number in the answer that is none
        return "the answer is garbled"
    texts = [text for e in seen for text in e.args if isinstance(text, str)]
    return printable((said or texts or [type(error).__name__])[-1][:200]).rstrip(".")


def _session() -> "requests.Session":
    import requests  # noqa: PLC0415

    return requests.Session()


def shown(address: str) -> str:
    """The address without user, password and query, which may be secrets."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return address.partition("?")[0].rpartition("@")[2]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def fetch_files(name: str, source: Source, folder: Path, files: Files) -> None:
    """Bring every file of `source` into `folder`; those that are already there and correct are kept.

    Raises NetworkError (the same command resumes), or WeightsError if a file differs from the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.files:
        path = folder / file.name
        if path.is_file() and file.sha256 is not None and sha256_file(path) == file.sha256:
            continue
        path.unlink(missing_ok=True)
        files.get(name, source, file, folder)


def bytes_here(folder: Path) -> int:
    """Bytes of the source's files, complete or not, that earlier attempts left in `folder`."""
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def files_from(place: str, *, endpoint: str = HUGGING_FACE, on_bytes: OnBytes = silent) -> Files:
    """The files of a folder or of an address (`MODEL/FILE` below it); "" for the publishers' servers.

    Raises UsageError if `place` is neither a folder nor an http(s) address.
    """
    web = WebFiles(endpoint=endpoint, on_bytes=on_bytes)
    if not place:
        return web
    if urlsplit(place).scheme in ("http", "https"):
        return replace(web, mirror=place)
    if not Path(place).is_dir():
        raise UsageError(
            "neither a folder nor an http(s) address", where=place, remedy="give --from DIR or --from URL"
        )
    return FolderFiles(Path(place), on_bytes)
