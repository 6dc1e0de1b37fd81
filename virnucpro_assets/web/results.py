"""Serves the results of the samples, read-only, at `/results/` beside the web UI.

`/results/` is the page across all samples, `/results/?entry=run7` across those of one entry of the inbox, and
`/results/summary.tsv` its table. `/results/SAMPLE/` lists the files of a sample, and `/results/SAMPLE/report.html` is
one file. Only files that `run.json` lists are served: no folder, no link, nothing outside of the samples. A page of
results is shown in a sandbox of its own, so that nothing in it can reach the web UI.
"""

import html
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router

from virnucpro_core.errors import VirnucproError
from virnucpro_core.files.disk import shown_bytes
from virnucpro_core.pipeline.across import rows_of_home
from virnucpro_core.results.batch import SUMMARY, BatchRow, batch_page, batch_table
from virnucpro_core.results.finished import listed_files
from virnucpro_core.samples.inbox_state import batches
from virnucpro_core.samples.sample import Sample, list_samples, open_sample

# What a browser shall do with a file, by its last suffix. Others are downloaded.
TYPES = {
    ".html": "text/html",
    ".json": "application/json",
    ".tsv": "text/tab-separated-values",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".bam": "application/octet-stream",
}
TEXT = (".txt", ".fasta", ".fa", ".fastq", ".gff3", ".bed", ".bedgraph")
HEADERS = {
    # The page has an origin of its own: its scripts cannot call the web UI, which has no login.
    "Content-Security-Policy": "sandbox allow-scripts allow-downloads allow-popups",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def results_app(home: Path) -> Router:
    """The ASGI application for the results of the samples in this VIRNUCPRO_HOME. It answers GET and HEAD."""

    def index(request: Request) -> Response:
        entry, rows = _across(home, request)
        others = [(name, f"?{urlencode({'entry': name})}") for name in batches(home) if name != entry]
        others[:0] = [("all samples", ".")] if entry else []
        table = f"{SUMMARY}?{urlencode({'entry': entry})}" if entry else SUMMARY
        return HTMLResponse(batch_page(rows, heading=entry, table=table, others=others), headers=HEADERS)

    def table(request: Request) -> Response:
        _, rows = _across(home, request)
        return Response(batch_table(rows), media_type=_type(Path(SUMMARY)), headers=HEADERS)

    def folder(request: Request) -> Response:
        sample = _sample(home, request.path_params["sample"])
        if not request.url.path.endswith("/"):
            return RedirectResponse(f"{request.url.path.rpartition('/')[2]}/", headers=HEADERS)
        files = [(file.name, file.name, shown_bytes(file.stat().st_size)) for file in _files(home, sample)]
        return _page(sample.name, files, empty="There are no results.")

    def file(request: Request) -> Response:
        sample, name = _sample(home, request.path_params["sample"]), request.path_params["name"]
        found = next((file for file in _files(home, sample) if file.name == name), None)
        if found is None:
            raise HTTPException(404, "there is no such result")
        return FileResponse(found, media_type=_type(found), headers=HEADERS)

    return Router(
        [
            Route("/", index),
            Route(f"/{SUMMARY}", table),
            Route("/{sample}", folder),
            Route("/{sample}/", folder),
            Route("/{sample}/{name}", file),
        ],
        redirect_slashes=False,
    )


def _sample(home: Path, name: str) -> Sample:
    try:
        return open_sample(home, name)
    except VirnucproError as error:
        raise HTTPException(404, "there is no such sample") from error


def _across(home: Path, request: Request) -> tuple[str, list[BatchRow]]:
    """The entry of the inbox that was asked for, "" for all samples, and the rows of its samples."""
    entry = request.query_params.get("entry", "")
    try:
        known = list_samples(home)
        if not entry:
            return entry, rows_of_home(home, known)
        found = batches(home)
        if entry not in found:
            raise HTTPException(404, "no entry of the inbox of this name has become several samples")
        return entry, rows_of_home(home, sorted({*found[entry]} & {*known}))
    except VirnucproError as error:  # a sample was removed just now, or the disk has a fault
        raise HTTPException(503, str(error)) from error


def _files(home: Path, sample: Sample) -> list[Path]:
    """The result files that may be shown: regular files below the samples' folder, no links."""
    try:
        names = listed_files(sample.results)
    except VirnucproError as error:
        raise HTTPException(404, "there are no complete results") from error
    return [file for name in names if _is_inside(file := sample.results / name, home / "samples")]


def _is_inside(file: Path, samples: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode) and file.resolve().is_relative_to(samples.resolve())
    except OSError:
        return False


def _type(file: Path) -> str:
    kind = TYPES.get(file.suffix, "text/plain" if file.suffix in TEXT else "application/octet-stream")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _page(title: str, rows: Iterable[tuple[str, str, Any]], *, empty: str) -> Response:
    """A page with a table of links: (address, text, size)."""
    lines = [
        f'<tr><td><a href="{html.escape(address)}">{html.escape(text)}</a></td><td>{html.escape(size)}</td></tr>'
        for address, text, size in rows
    ]
    body = f"<table>{''.join(lines)}</table>" if lines else f"<p>{empty}</p>"
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<h1>{html.escape(title)}</h1>{body}</html>",
        headers=HEADERS,
    )
