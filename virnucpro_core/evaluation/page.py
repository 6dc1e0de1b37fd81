"""Write `evaluation.html`: one self-contained page that shows an evaluation, in the style of the report.

Like the report, it loads nothing from outside, and its content security policy forbids it. It has no script.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from virnucpro_core.errors import printable
from virnucpro_core.evaluation.evaluation import FOUND, FOUND_OF_ALL, Evaluation, Part, Reliability
from virnucpro_core.evaluation.metrics import Measure
from virnucpro_core.files.publish import publish_bytes
from virnucpro_core.sequences.labelled import LABELS

MEASURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "mcc": "MCC",
    "sensitivity_at_1_percent_false": "sensitivity at 1 % false positives",
    "sensitivity_at_5_percent_false": "sensitivity at 5 % false positives",
}
SHARES = {FOUND: "found of virus with a call", FOUND_OF_ALL: "found of all virus"}
MOST_GROUPS = 1_000


def write_page(path: Path, evaluation: Evaluation) -> None:
    """Publish the page at `path`. The same evaluation gives the same bytes."""
    style = _text("virnucpro_core.results", "report.css") + _text(
        "virnucpro_core.evaluation", "evaluation.css"
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("virnucpro_core.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": "{:,}".format, "printable": lambda text: printable(text[:300])}
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    run = {"fitted_on": ""} | evaluation.run
    page = environment.get_template(
        "evaluation.html.j2"
    ).render(
        evaluation=evaluation,
        run=run,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - files of this package
        measures=MEASURES,
        shares=SHARES,
        levels=(("Records", evaluation.records), ("Chunks", evaluation.chunks)),
        charts=[_by_length(evaluation.records, name) for name in ("auroc", "sensitivity_at_5_percent_false")],
        diagrams=[_diagram(one) for one in evaluation.reliability],
        bins=[(one.name, one.bins) for one in evaluation.reliability],
        groups=evaluation.groups[:MOST_GROUPS],
        labels=LABELS,
        facts={name: _facts(run.get(name, {})) for name in ("settings", "versions", "digests", "data")},
    )
    publish_bytes(path, page.encode())


def shown(one: Measure) -> str:
    """`0.91 (0.88 to 0.94)`, or why there is no number."""
    if one.value is None:
        return f"not defined: {one.reason}"
    interval = f"no interval: {one.reason}" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"
    return f"{one.value:.3f} ({interval})"


def _by_length(parts: Sequence[Part], name: str) -> dict[str, Any]:
    """A row for each part: value and interval on a scale from 0 to 1, in a box that is 400 wide."""
    rows = []
    for number, part in enumerate(parts):
        one = part.measures[name]
        y = 24 + 30 * number
        row: dict[str, Any] = {
            "name": part.name,
            "y": y,
            "words": shown(one),
            "x": None,
            "low": None,
            "high": 0,
        }
        if one.value is not None:
            row["x"] = _x(one.value)
        if one.low is not None and one.high is not None:
            row |= {"low": _x(one.low), "high": _x(one.high)}
        rows.append(row)
    return {"title": f"{MEASURES[name]} by record length", "rows": rows, "height": 30 * len(rows) + 30}


def _x(value: float) -> float:
    return round(150 + 230 * value, 2)


def _diagram(one: Reliability) -> dict[str, Any]:
    """The reliability diagram in a box of 300 x 300: a dot for each bin, larger with more rows, and its interval."""
    most = max((b.rows for b in one.bins), default=1)
    dots = [
        {
            "x": round(40 + 240 * b.mean, 2),
            "y": round(270 - 240 * b.share, 2),
            "top": round(270 - 240 * b.share_high, 2),
            "bottom": round(270 - 240 * b.share_low, 2),
            "r": round(2.5 + 5 * (b.rows / most) ** 0.5, 2),
            "words": f"{b.rows:,} records: mean {b.mean:.3f}, share of virus {b.share:.3f}",
        }
        for b in one.bins
    ]
    errors = "no record has a value"
    if one.brier is not None and one.error is not None:
        errors = f"Brier score {one.brier:.3f}, calibration error {one.error:.3f}, {one.records:,} records"
    return {"title": one.name, "dots": dots, "errors": errors}


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, printable(v if isinstance(v, str) else json.dumps(v))) for name, v in sorted(values.items())
    ]


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath("templates", name).read_text("utf-8")
