"""Holds one process of the platform at a chosen moment: Python imports this module as it starts, from PYTHONPATH.

The folder TORTURE_MOMENT has `moment.json`: `at`, a `module` as it is imported or a `module:function` as it is called
for the `call`th time; `word`, which stands in the command line of that process; `how` an exception of a signal's
handler ends there: "raised", or swallowed as Python does in a `__del__` ("ignored") or as a library may ("caught", "an
error").
The first process that comes to the moment makes the file `reached` and waits for `go`.
"""

import contextlib
import functools
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 60.0


class Held:
    """The moment: an import hook that puts `hold` before the module's code, or before its function."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "moment.json").read_text())
        self.folder, self.how, self.word, self.call = folder, told["how"], told["word"], told["call"]
        self.module, _, self.function = told["at"].partition(":")

    def find_spec(self, name: str, *_: object) -> Any:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module = functools.partial(self._execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[Any], None], module: Any) -> None:
        if not self.function:
            self.hold()
        execute(module)
        if self.function:
            *owners, name = self.function.split(".")
            owner = functools.reduce(getattr, owners, module)
            setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def held(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                self.call -= 1
                if not self.call:
                    self.hold()
            return function(*arguments, **named)

        return held

    def hold(self) -> None:
        try:
            (self.folder / "reached").touch(exist_ok=False)
        except FileExistsError:
            return
        if self.how == "ignored":
            type("Tidied", (), {"__del__": lambda _: self.wait()})()
        elif self.how == "caught":
            with contextlib.suppress(BaseException):
                self.wait()
        elif self.how == "an error":
            try:
                self.wait()
            except BaseException as error:  # as a library in C makes of what its callback raises
                raise OSError("a callback failed") from error
        else:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + LONGEST
        while not (self.folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


if folder := os.environ.get("TORTURE_MOMENT"):
    with contextlib.suppress(FileNotFoundError):
        moment = Held(Path(folder))
        if moment.word in " ".join(sys.orig_argv):
            sys.meta_path.insert(0, moment)  # type: ignore[arg-type]
