"""One file of a download on its way: its bytes so far, and what of them is kept when an answer is wrong."""

import hashlib
import os
from pathlib import Path
from typing import NoReturn

from virnucpro_core.errors import WeightsError
from virnucpro_core.files.publish import sync
from virnucpro_core.models.sources import RemoteFile

BLOCK_BYTES = 1 << 20


class Arriving:
    """A file on its way: `.part` on disk, the number of its bytes (`done`) and their sha256 so far.

    at: where in the file the answer's next byte belongs; bytes before `done` are compared with those that are here.
    from_the_start: the next request asks for the whole file, because the server did not answer one for the rest.
    """

    def __init__(self, file: RemoteFile, path: Path, origin: str | Path) -> None:
        self.file, self.path, self.origin = file, path, str(origin)
        self.part = path.with_name(path.name + ".part")
        self.total, self.done, self._digest = file.size, 0, hashlib.sha256()
        self.at, self.from_the_start, self._before = 0, False, 0

    def resume(self) -> None:
        """Go on behind the bytes that an earlier command left."""
        if self.file.sha256 is None or not self.part.is_file():
            self.start_again()
            return
        with self.part.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                self._digest.update(block)
        self.done = self._before = self.part.stat().st_size
        if self.file.size is not None and self.done > self.file.size:
            self.start_again()

    def start_again(self) -> None:
        """Forget all bytes."""
        self.part.write_bytes(b"")
        self.total, self.done, self._digest = self.file.size, 0, hashlib.sha256()
        self.at = self._before = 0

    def begin_answer(self, at: int) -> None:
        """An answer begins: its first byte belongs at `at`, at most `done`. What is here is kept, whatever comes."""
        self.at, self._before = at, self.done

    def add(self, block: bytes) -> None:
        """Append bytes; those that are here already are compared.

        Raises WeightsError as soon as the file is longer than the pinned one, or a byte is another than the one here.
        """
        if self.file.size is not None and self.at + len(block) > self.file.size:
            self.refuse(f"{self.file.name} has more than the expected {self.file.size:,} bytes")
        if known := min(len(block), self.done - self.at):
            with self.part.open("rb") as stream:
                stream.seek(self.at)
                if stream.read(known) != block[:known]:
                    self.refuse(f"{self.file.name} has other bytes there than those that are here already")
        if new := block[known:]:
            with self.part.open("ab") as stream:
                stream.write(new)
            self._digest.update(new)
        self.at += len(block)
        self.done += len(new)

    def check_length(self, announced: int) -> None:
        """Raise WeightsError before the download if the server announces another length than the pinned one."""
        if self.file.size not in (None, announced):
            self.refuse(f"{self.file.name} has {announced:,} bytes, {self.file.size:,} are expected")

    def finish(self) -> Path:
        """Give the complete file its name. Raises WeightsError if it is not the pinned one."""
        if self.file.size not in (None, self.done):
            self.refuse(f"{self.file.name} has {self.done:,} bytes, {self.file.size:,} are expected")
        if self.file.sha256 not in (None, self._digest.hexdigest()):
            self.refuse(f"{self.file.name} does not have the pinned sha256 {self.file.sha256}")
        sync(self.part)
        self.part.replace(self.path)
        return self.path

    def refuse(self, what: str) -> NoReturn:
        """Delete the bytes of this answer, keep those of earlier ones, and raise WeightsError."""
        here = self.part.stat().st_size if self.part.exists() else 0
        kept = min(self._before, here)
        if kept and kept != self.file.size:  # a complete file that is wrong is of no use
            os.truncate(self.part, kept)
            remedy = (
                f"the {kept:,} bytes of earlier answers are kept: check the network (is a login page in the way?) and"
                f" fetch it again, or from another place; if that fails as well, delete {self.part}"
            )
        else:
            self.part.unlink(missing_ok=True)
            remedy = ("its bytes were deleted; " if here else "") + "fetch it again, or from another place"
        raise WeightsError(what, where=self.origin, remedy=remedy)
