"""Publish a trained classifier as one folder: weights, manifest, model card, and an evaluation on held-out groups."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_core import __version__
from virnucpro_core.errors import printable
from virnucpro_core.evaluation.evaluation import (
    FOUND_OF_ALL,
    PAGE,
    Evaluation,
    EvaluationSettings,
    evaluate,
    save,
)
from virnucpro_core.evaluation.metrics import Measure, Rows
from virnucpro_core.evaluation.page import MEASURES, shown, write_page
from virnucpro_core.evaluation.scores import Scored
from virnucpro_core.files.publish import no_check, publish_bytes, publish_folder
from virnucpro_core.models.convert import Origin, write_model_manifest
from virnucpro_core.models.store import TRAINING_SEQUENCES
from virnucpro_core.models.training import PARTS, Trained
from virnucpro_core.models.training_data import write_training_sequences
from virnucpro_core.results.chunk_calls import chunk_maxima
from virnucpro_core.results.record_calls import chunk_scores

CARD = "MODEL_CARD.md"
_ABOUT = "The records are of held-out groups: neither training nor the choice of the seed saw them."


def publish_trained(
    trained: Trained,
    out: Path,
    settings: EvaluationSettings,
    *,
    note: str = "",
    check: Callable[[], None] = no_check,
) -> Evaluation:
    """Publish the model folder `out`, replacing what is there. Returns the evaluation of the held-out groups.

    note: printed wherever figures are shown, for encoders without meaning. check: called just before the folder
    appears. The same training gives the same bytes.
    """
    classifier = trained.classifier
    evaluation = evaluate(scored(trained), settings, _run(trained, out.name, note))
    numbers = {
        "input_dim": classifier.input_dim,
        "hidden_dim": classifier.hidden_dim,
        "chunk_size": classifier.chunk_size,
        "parameters": classifier.parameters,
        **trained.facts,
        "held_out": _headline(evaluation),
    }
    with publish_folder(out, check) as folder:
        classifier.save(folder)
        write_training_sequences(folder, trained.digests)
        write_model_manifest(folder, "classifier", Origin("trained here", note=note), numbers)
        save(evaluation, folder)
        write_page(folder / PAGE, evaluation)
        publish_bytes(folder / CARD, model_card(trained, evaluation, out.name).encode())
    return evaluation


def scored(trained: Trained) -> Scored:
    """The records and chunks of the evaluation part with their scores, as a sample's results would have them."""
    ends = np.cumsum(trained.chunks)
    maxima_C2 = chunk_maxima(trained.evaluated.chunk, trained.scores, 0, int(ends[-1]))
    score_C = chunk_scores(maxima_C2)
    record_C = np.repeat(np.arange(len(trained.chunks)), trained.chunks)
    has_score = ~np.isnan(score_C)
    counts = np.bincount(record_C[has_score], minlength=len(ends))
    sums = np.bincount(record_C[has_score], score_C[has_score], minlength=len(ends))
    score = np.divide(sums, counts, out=np.full(len(ends), np.nan), where=counts > 0)
    names = sorted({one.group for one in trained.truth.values()})
    index = {name: k for k, name in enumerate(names)}
    label = np.array([one.label for one in trained.truth.values()], np.int64)
    group = np.array([index[one.group] for one in trained.truth.values()], np.int64)
    record = record_C[has_score]
    open_records = open_chunks = None
    if trained.settings.min_open:
        open_C = np.zeros(len(score_C), np.bool_)
        open_C[trained.evaluated.chunk[trained.evaluated.is_open]] = True
        n_open = np.bincount(record_C[open_C], minlength=len(ends))
        open_chunks, open_records = open_C[has_score], (n_open > 0) & (n_open == counts)
    return Scored(
        Rows(label, score, group, trained.lengths),
        Rows(label[record], score_C[has_score], group[record], trained.lengths[record]),
        names,
        int((~has_score).sum()),
        open_records=open_records,
        open_chunks=open_chunks,
    )


def _run(trained: Trained, name: str, note: str) -> dict[str, Any]:
    return {
        "sample": f"classifier {printable(name)}",
        "profile": "demo" if note else "",
        "note": note,
        "about": _ABOUT,
        "settings": trained.facts["training"],
        "versions": {"virnucpro": __version__},
        "digests": trained.facts["trained_on"] | {"classifier": trained.classifier.fingerprint},
        "data": {one["name"]: one["sha256"] for one in trained.facts["data"]},
    }


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    """The measures of all held-out records and chunks, for the manifest."""
    return {
        level: {name: _short(one) for name, one in parts[0].measures.items()}
        for level, parts in (("records", evaluation.records), ("chunks", evaluation.chunks))
    }


def _short(one: Measure) -> Any:
    if one.value is None:
        return {"undefined": one.reason}
    return [round(value, 4) for value in (one.value, one.low, one.high) if value is not None]


def model_card(trained: Trained, evaluation: Evaluation, name: str) -> str:
    """The model card in markdown: what it is, what it was trained on, how good it is, and what to keep in mind."""
    note = evaluation.run["note"]
    head = [f"# {_cell(name)}", ""]
    if note:
        head += [f"**{note} The figures on this page mean nothing.**", ""]
    caveats = [line for line in _CAVEATS if not (trained.settings.min_open and line.startswith("- A chunk"))]
    parts = (head, _what(trained), _data(trained.facts), _training(trained), _figures(evaluation), caveats)
    return "\n".join(line for part in parts for line in part)


_CAVEATS = (
    "## Keep in mind",
    "- A score is no probability.",
    "- The figures hold for sequences like these. Viruses that are less related to the training part score lower.",
    "- A chunk without a stop-free frame has no score, and a record with no other chunk gets no call.",
    "- The encoders keep the licences of their authors.",
    "",
)


_OF_OPEN = (
    "It was trained with open frames: a chunk without a stop-free frame is judged by the longest stretch without a",
    "stop in each of its reading frames. Scores of stop-free frames only are not what it was measured on.",
    "",
)


def _what(trained: Trained) -> list[str]:
    classifier, min_open = trained.classifier, trained.settings.min_open
    opened = f" --frames open --min-open {min_open}" if min_open else ""
    return [
        f"A VirNucPro classifier: it tells viral from other frames of chunks of {classifier.chunk_size} bases, by"
        f" {classifier.input_dim:,} features of DNABERT-S and ESM-2. It has {classifier.parameters:,} values.",
        "",
        "    virnucpro predict reads.fa --profile PROFILE --classifier THIS_FOLDER"
        f" --chunk-size {classifier.chunk_size}{opened} --out results",
        "",
        *(_OF_OPEN if min_open else ()),
        "PROFILE is one with the encoders below: scores with other encoders mean nothing. For probabilities, make a",
        "calibration with `virnucpro calibrate`, on sequences that are not in the training part.",
        "",
        "| | sha256 of the weights |",
        "|---|---|",
        *(f"| {kind} | `{digest}` |" for kind, digest in sorted(trained.facts["trained_on"].items())),
        f"| this classifier | `{classifier.fingerprint}` |",
        "",
    ]


def _data(facts: Mapping[str, Any]) -> list[str]:
    return [
        "## Data",
        "No group of sequences is in two parts. The second part says when to stop and which seed is best; the third is",
        "only evaluated.",
        "",
        "| part | class | records | groups | bases | frames |",
        "|---|---|---:|---:|---:|---:|",
        *_part_rows(facts),
        "",
        *(f"- {_cell(one['name'])}, sha256 `{one['sha256']}`" for one in facts["data"]),
        "",
        f"`{TRAINING_SEQUENCES}` has digests of the sequences of the first two parts, so that `virnucpro evaluate` and",
        "`virnucpro calibrate` notice them.",
        "",
    ]


def _training(trained: Trained) -> list[str]:
    settings = ", ".join(f"{key} {value}" for key, value in _flat(trained.facts["training"]))
    return [
        "## Training",
        f"VirNucPro {__version__}, with these settings: {settings}.",
        "",
        "| seed | epochs | best epoch | loss of the stopping part | kept |",
        "|---:|---:|---:|---:|---|",
        *(
            f"| {one['seed']} | {one['epochs']} | {one['best_epoch']} | {one['held_out_loss']:.4f} |"
            f" {'yes' if k == trained.best else ''} |"
            for k, one in enumerate(trained.facts["seeds"])
        ),
        "",
    ]


def _figures(evaluation: Evaluation) -> list[str]:
    return [
        "## How good it is on groups that it has not seen",
        "*found of all virus* is at the cut-off, and a virus without a call counts as not found. All other",
        "measures are of records with a score.",
        "",
        f"95 % intervals are from {evaluation.settings.bootstrap:,} draws of whole groups. `{PAGE}` has pictures,"
        " chunks and groups.",
        "",
        "| records | virus | others | no call | found of all virus | " + " | ".join(MEASURES.values()) + " |",
        "|---|---:|---:|---:|---|" + "---|" * len(MEASURES),
        *(
            f"| {part.name} | {part.virus} | {part.others} | {part.no_call_virus + part.no_call_others} |"
            f" {shown(part.shares[FOUND_OF_ALL])} | "
            + " | ".join(shown(part.measures[key]) for key in MEASURES)
            + " |"
            for part in evaluation.records
        ),
        "",
    ]


def _part_rows(facts: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in PARTS:
        for k, (words, one) in enumerate(facts["parts"][name].items()):
            frames = f"{facts['frames'][name]:,} of both" if k == 0 else ""
            rows.append(
                f"| {name} | {words} | {one['records']:,} | {one['groups']:,} | {one['bases']:,} | {frames} |"
            )
    return rows


def _flat(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    own = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    return list((own | dict(settings["recipe"])).items())


def _cell(text: str) -> str:
    """A name as markdown text: no markup, no cell border."""
    return "".join(c if c.isalnum() or c in " -_." else f"&#{ord(c)};" for c in printable(text[:200]))
