"""What mkdocs.yml needs beyond MkDocs: pages that lie outside of docs/, links to files of the repository, block edges.

CONTRIBUTING.md and its like become pages of the site. A link to any other file of the repository (a script, a
configuration) gets a copy of that file below files/, a link to a folder a list of its files, so that the site is whole
without the repository.
"""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "requirements-advisories.md": "advisories.md",
    "virnucpro_core/demo/README.md": "demo-models.md",
    "virnucpro_core/golden/README.md": "golden.md",
}
PAGES = {in_site: source for source, in_site in OUTSIDE.items()}
COPIES = "files"
MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^\s*(```|~~~)")
LIST = re.compile(r"^\s*([-*]|\d+\.) ")
TABLE = re.compile(r"^\|")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and the files of the repository to which any page links."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    copied: set[str] = set()
    for file in files.documentation_pages():
        for _, target, _ in LINK.findall(Path(file.abs_src_path or "").read_text(encoding="utf-8")):
            path = _repository_path(target, file.src_uri)
            if path is not None and _is_copied(path):
                copied.add(path)
    for path in sorted(path for path in copied if (ROOT / path).is_dir()):
        inside = [str(file.relative_to(ROOT)) for file in sorted((ROOT / path).rglob("*")) if _is_kept(file)]
        up = "../" * (path.count("/") + 2)
        links = [f"- [{name}]({up}{COPIES}/{name})" for name in inside]
        listing = "\n".join([f"# {path}", "", "Files of the repository.", "", *links, ""])
        files.append(File.generated(config, f"{COPIES}/{path}/index.md", content=listing))
        copied |= set(inside)
    for path in sorted(path for path in copied if (ROOT / path).is_file()):
        files.append(File.generated(config, f"{COPIES}/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Links as the site has them, the rooms as a drawing, and an empty line before each list and table."""
    if MERMAID.search(markdown):
        svg = _module("rooms_svg").drawing()
        markdown = MERMAID.sub(lambda _: svg, markdown)
    return _apart(LINK.sub(lambda found: _link(found, page.file.src_uri), markdown))


def _module(name: str) -> ModuleType:
    """A module beside this one; the folder is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _link(found: re.Match[str], page: str) -> str:
    before, target, after = found.groups()
    path = None if page.startswith(COPIES) else _repository_path(target, page)
    if path is None:
        return found.group()
    if path in OUTSIDE:
        in_site = OUTSIDE[path]
    elif path.startswith("docs/"):
        in_site = path.removeprefix("docs/")
    elif _is_copied(path):
        in_site = f"{COPIES}/{path}" + ("/index.md" if (ROOT / path).is_dir() else "")
    else:
        return found.group()  # MkDocs warns about it
    anchor = target.partition("#")[2]
    return before + os.path.relpath(in_site, Path(page).parent) + ("#" + anchor if anchor else "") + after


def _repository_path(target: str, page: str) -> str | None:
    """The file a link leads to, relative to the repository; None for an address or an anchor of the same page."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    source = PAGES.get(page, f"docs/{page}")
    return os.path.normpath(Path(source).parent / path)


def _is_copied(path: str) -> bool:
    return not path.startswith(("docs", ".")) and path not in OUTSIDE and (ROOT / path).exists()


def _is_kept(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def _apart(markdown: str) -> str:
    lines: list[str] = []
    in_fence = False
    for line in markdown.splitlines():
        before = lines[-1] if lines else ""
        if not in_fence and before.strip():
            starts_list = LIST.match(line) and not LIST.match(before) and not before.startswith(" ")
            starts_table = TABLE.match(line) and not TABLE.match(before)
            if starts_list or starts_table:
                lines.append("")
        if FENCE.match(line):
            in_fence = not in_fence
        lines.append(line)
    return "\n".join(lines) + "\n"
