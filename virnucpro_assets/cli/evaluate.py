"""The commands `evaluate` and `calibrate`: measure how good the calls are, and what the scores stand for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.labelled import (
    FILE,
    MEASURES,
    SEQUENCES,
    calibration_path,
    numbers,
    show_evaluation,
)
from virnucpro_assets.cli.options import PATH, TopicCommand, option, out, topic, with_options
from virnucpro_assets.cli.predict_options import COMPUTING, MODELS
from virnucpro_assets.platform.startup import lasting_imports

if TYPE_CHECKING:
    from virnucpro_assets.platform.resource import Platform
    from virnucpro_core.evaluation.evaluation import Evaluation
    from virnucpro_core.evaluation.scores import Scored
    from virnucpro_core.models.profiles import ResolvedProfile
    from virnucpro_core.results.delivery import Owner

LENGTHS = topic(
    "Sequences",
    option(
        "--lengths",
        metavar="N,N,...",
        callback=numbers,
        help="Cut the records into pieces of these lengths; a record is their group.  [default: whole records]",
    ),
)
SAMPLE = topic(
    "Samples",
    option("--sample", default="", help="Name of the sample.  [default: made from the input]"),
    option(
        "--fresh/--resume",
        default=False,
        help="Delete the work of an earlier run and start again, or resume it.  [default: resume]",
    ),
)
OUTPUT = topic(
    "Output",
    out("Folder for the evaluation and the predictions."),
    option("--force", is_flag=True, help="Replace files in --out that are not of this evaluation."),
)
CALLS = topic(
    "Calls",
    option(
        "--cutoff",
        type=click.FloatRange(0, 1),
        help="Score from which a record counts as called virus.  [default: 0.5]",
    ),
    option(
        "--calibration",
        metavar="FILE|none",
        callback=lambda _context, _option, value: calibration_path(value),
        help="Calibration to evaluate as well.  [default: the one beside the classifier]",
    ),
    option(
        "--prior",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Share of virus among the records, for probabilities.  [default: estimated from the scores]",
    ),
)
CURVES = topic(
    "Calibration",
    option(
        "--method",
        type=click.Choice(["isotonic", "platt"]),
        default="isotonic",
        show_default=True,
        help="isotonic: any rising curve. platt: a logistic curve, for few records.",
    ),
    option("--save", type=PATH, help="File to write.  [default: beside the classifier]"),
    option(
        "--allow-training-data",
        is_flag=True,
        help="Calibrate although sequences are those of the classifier's training.",
    ),
)
MEASURED = (MODELS, COMPUTING, SAMPLE, MEASURES, OUTPUT)


@click.command(cls=TopicCommand)
@click.argument("fasta", nargs=-1, type=FILE)
@with_options(SEQUENCES, LENGTHS, CALLS, *MEASURED)
def evaluate(**options: Any) -> None:
    """Measure how good the calls are, on labelled sequences.

    Give two FASTA files (--virus, --others), or FASTA with a table (--labels). The sequences go through the same
    graph as with `predict`. The same command resumes. --out then holds evaluation.html, evaluation.json and
    evaluation.tsv.

    \b
    Examples:
      virnucpro evaluate --virus v.fa --others o.fa --out evaluation
      virnucpro evaluate all.fa --labels t.tsv --lengths 500,1000 --out e
    """
    work = _Work(options)
    if work.overlap.shared:
        click.echo(
            f"{work.overlap.words} were in the training of this classifier: the figures will be too good",
            err=True,
        )
    if work.fitted_on:
        click.echo(
            f"the calibration was fitted to these very data: {work.fitted_on}; its probabilities will look too good",
            err=True,
        )
    with work.alone():
        work.finish(work.evaluated(work.scored()))


@click.command(cls=TopicCommand)
@click.argument("fasta", nargs=-1, type=FILE)
@with_options(SEQUENCES, LENGTHS, CURVES, *MEASURED)
def calibrate(method: Any, save: Path | None, *, allow_training_data: bool, **options: Any) -> None:
    """Find out which probability a score stands for.

    Takes labelled sequences as `evaluate` does, but not those that the classifier was trained on. One curve is fitted
    for each length bin. The calibration is written beside the classifier, and `predict` then adds the columns
    `probability` and `fdr`. The evaluation in --out shows how well it does on groups that it was not fitted to. The
    same command resumes, and can be repeated.

    \b
    Example:
      virnucpro calibrate all.fa --labels t.tsv --lengths 500,1000 --out c
    """
    work = _Work(options | {"calibration": "none"})
    if not allow_training_data:
        work.refuse_training_data()
    from virnucpro_core.evaluation.calibrating import check_enough, fit_calibration, held_out
    from virnucpro_core.evaluation.calibration_file import Made, check_calibration_file, save_calibration
    from virnucpro_core.evaluation.evaluation import length_ranges
    from virnucpro_core.evaluation.fitted_on import SEQUENCES, digests_text

    ranges = length_ranges(work.settings.length_bins)
    known: dict[str, Any] = {
        "classifier": work.profile.classifier_fingerprint,
        "chunk_size": work.profile.chunk_size,
        "min_open": work.sample_settings.open_length,
    }
    digests = digests_text(work.examined.digests)
    target = work.calibration_target(save)
    check_calibration_file(
        target,
        Made(**known, method=method, sample=work.name, sequences=digests, ranges=ranges),
        force=work.force,
    )
    check_enough(work.examined, work.lengths, ranges)
    with work.alone(target):
        scored = work.scored()
        out_of_fold = held_out(scored.records, ranges, method, work.settings.seed)
        facts = work.run("") | {"held_out": out_of_fold.facts, SEQUENCES: digests}
        made = fit_calibration(scored.records, ranges, method=method, facts=facts, **known)
        work.finish(work.evaluated(scored, out_of_fold))
        save_calibration(made, target, force=work.force)  # last, so that it stands for a complete evaluation
    for curve in made.curves:
        if curve.reason:
            click.echo(f"{curve.words}: not calibrated: {curve.reason}")
    click.echo(f"calibration: {target}")


class _Work:
    """One evaluation: its sample, its folder and its settings. Everything that can be refused is refused here."""

    def __init__(self, options: dict[str, Any]) -> None:
        with lasting_imports():
            from virnucpro_assets.platform.environment import dagster_home
            from virnucpro_assets.platform.resource import platform_from_environment
            from virnucpro_core.evaluation.evaluation import EvaluationSettings
            from virnucpro_core.evaluation.fitted_on import fitted_on
            from virnucpro_core.evaluation.folder import PIECES
            from virnucpro_core.files.digests import sha256_json
            from virnucpro_core.files.overwriting import keep_inputs
            from virnucpro_core.models.training_data import Overlap, overlap
            from virnucpro_core.pipeline.lane import sample_calibration
            from virnucpro_core.samples.combined import check_of_use, check_open_frames
            from virnucpro_core.samples.home import check_home
            from virnucpro_core.samples.sample import check_key
            from virnucpro_core.sequences.labelled import LabelledInput
            from virnucpro_core.sequences.names import sample_name

        self.labelled: LabelledInput = LabelledInput(
            options.pop("virus"), options.pop("others"), options.pop("fasta"), options.pop("labels")
        )
        measuring = [options.pop(name) for name in ("length_bins", "bootstrap", "seed")]
        self.out: Path = options.pop("out")
        self.lengths: tuple[int, ...] = options.pop("lengths")
        self.fresh, self.force = options.pop("fresh"), options.pop("force")
        name = options.pop("sample")
        self.platform: Platform = platform_from_environment().asked(
            gpus=options.pop("gpus") or 0, device=options.pop("device") or ""
        )
        self.sample_settings = self.platform.sample_settings(**options)
        self.settings = EvaluationSettings(self.sample_settings.cutoff, *measuring)
        self.profile: ResolvedProfile = self.platform.profile_of(self.sample_settings)
        about = [str(f.resolve()) for f in self.labelled.files], self.lengths, self.sample_settings.profile
        check_of_use({"min_open": options["min_open"]}, [(self.sample_settings, ())])
        check_open_frames(self.sample_settings)
        opened = [n] if (n := self.sample_settings.open_length) else []
        classifier = self.sample_settings.classifier or None
        key = sha256_json([*about, self.sample_settings.chunk_size, classifier, *opened])
        self.name = check_key(name) if name else f"{sample_name(self.labelled.files[0])[:40]}-eval-{key[:6]}"
        self.files = [self.out / PIECES] if self.lengths else self.labelled.files
        keep_inputs(self.outputs, self._inputs())
        self._check_folder()
        check_home(self.platform.folder, dagster_home())
        if not self.lengths:
            self._check_predictions(self.files)
        examined = self.labelled.examined()
        examined.check_lengths(self.lengths)
        self.examined, self.truth = examined, examined.truth
        self.overlap: Overlap = overlap(self.profile.classifier, examined.digests)
        used = sample_calibration(self.profile, self.sample_settings)
        self.fitted_on = fitted_on(used, examined.digests, self.labelled.files) if used else ""

    @property
    def outputs(self) -> list[Path]:
        """All files that are written to --out, those of the predictions included."""
        from virnucpro_core.evaluation.evaluation import JSON, PAGE, TABLE
        from virnucpro_core.results.delivery import delivered_files

        pieces = self.files if self.lengths else []
        return [
            *(self.out / name for name in (JSON, TABLE, PAGE)),
            *pieces,
            *delivered_files(self.predictions),
        ]

    def _inputs(self) -> list[Path]:
        """All files that are read: sequences, table, calibration, and those of the models."""
        from virnucpro_core.files.manifest import MANIFEST, read_manifest
        from virnucpro_core.results.calibration import NO_CALIBRATION

        models = (self.profile.dnabert, self.profile.esm2, self.profile.classifier)
        of_models = [f / name for f in models for name in (MANIFEST, *read_manifest(f)["files"])]
        given = self.sample_settings.calibration
        named = [self.labelled.labels, None if given in ("", NO_CALIBRATION) else Path(given)]
        return [*self.labelled.files, *of_models, *(path for path in named if path)]

    def _check_predictions(self, files: Sequence[Path]) -> "Owner | None":
        """Raises UsageError if the predictions of these files cannot, or must not, be written.

        Returns whose results will be replaced.
        """
        from virnucpro_core.results.delivery import check_out

        known = {"home": self.platform.folder, "force": self.force, "fresh": self.fresh}
        return check_out(self.predictions, self.name, files, **known)

    def _check_pieces(self, new: Path) -> None:
        """Raises UsageError if the pieces in the file `new`, or their predictions, must not be written to --out."""
        from virnucpro_core.evaluation.folder import check_pieces

        if not self.force:
            check_pieces(self.out, new)
        self._check_predictions([new])

    def refuse_training_data(self) -> None:
        """Raises UsageError if the classifier was trained on some of the sequences."""
        from virnucpro_core.errors import UsageError

        if self.overlap.shared:
            raise UsageError(
                f"{self.overlap.words} were in the training of this classifier: it scores them too well, so that"
                " probabilities would be too high",
                where=self.profile.classifier,
                remedy="give other sequences; or --allow-training-data",
            )

    @property
    def predictions(self) -> Path:
        """The folder for the sample's results."""
        from virnucpro_core.evaluation.folder import PREDICTIONS

        return self.out / PREDICTIONS

    def calibration_target(self, save: Path | None) -> Path:
        """Where the calibration will be written. Raises UsageError for a file of another kind."""
        from virnucpro_core.errors import UsageError
        from virnucpro_core.files.overwriting import keep_inputs
        from virnucpro_core.models.profiles import DEMO
        from virnucpro_core.results.calibration import calibration_file

        target = save or calibration_file(
            self.profile.classifier, self.profile.chunk_size, self.sample_settings.open_length
        )
        if target.parent.resolve().is_relative_to(DEMO):
            raise UsageError(
                "the demo's classifier is part of the program", remedy="give --save FILE for the calibration"
            )
        keep_inputs([target], self._inputs(), remedy="give another --save FILE")
        if target.resolve() in {file.resolve() for file in self.outputs}:
            raise UsageError("is a file of the evaluation", where=target, remedy="give another --save FILE")
        return target

    @contextmanager
    def alone(self, *more: Path) -> Iterator[None]:
        """Keep other commands from writing into --out, and the files `more`, during the block."""
        from virnucpro_core.evaluation.evaluation import JSON
        from virnucpro_core.files.outputs import one_command

        with one_command([self.out / JSON, *more]):
            self._check_folder()  # another command may have ended in between
            yield

    def _check_folder(self) -> None:
        from virnucpro_core.evaluation.folder import check_folder

        check_folder(self.out, self.name, force=self.force)

    def scored(self) -> "Scored":
        """Predict the sample, or resume it, and read its scores. Raises the sample's error."""
        with lasting_imports():
            from virnucpro_assets.cli.progress import show_predictions
            from virnucpro_assets.cli.said import Said
            from virnucpro_assets.running.registration import registered
            from virnucpro_assets.running.request import Request, Wanted
            from virnucpro_core.evaluation.scores import read_scored
            from virnucpro_core.sequences.labelled import write_pieces

        if self.lengths:
            self.out.mkdir(parents=True, exist_ok=True)
            self.truth = write_pieces(
                self.labelled, self.truth, self.lengths, self.files[0], check=self._check_pieces
            )
        earlier = self._check_predictions(self.files)
        wanted = Wanted(self.name, tuple(self.files), self.sample_settings, self.predictions, earlier=earlier)
        request = Request(self.platform, (wanted,), {}, named=True, force=self.force)
        known, failures = registered(request, fresh=self.fresh)
        samples = list(known.values())
        failures |= (
            show_predictions(samples, self.platform, lambda _: request.target(wanted), Said())
            if known
            else {}
        )
        for error in failures.values():
            raise error
        return read_scored(self.predictions, self.truth)

    def run(self, about: str) -> dict[str, Any]:
        """What was evaluated: from the sample's `run.json`, and the labelled data."""
        import json
        from dataclasses import asdict

        from virnucpro_core.files.digests import sha256_file
        from virnucpro_core.results.folder import RUN

        facts = json.loads((self.predictions / RUN).read_bytes())
        files = [*self.labelled.files, *([self.labelled.labels] if self.labelled.labels else [])]
        data: dict[str, Any] = {file.name: sha256_file(file) for file in files}
        data |= {"records": len(self.truth), "groups": len({one.group for one in self.truth.values()})}
        data["in the classifier's training"] = self.overlap.words
        if self.lengths:
            data["pieces of bases"] = ", ".join(map(str, self.lengths))
        kept = {
            name: facts[name] for name in ("sample", "profile", "note", "settings", "versions", "digests")
        }
        kept["sample"] = self.name  # of this evaluation, also if the home folder calls it a variant
        kept |= {name: facts[name] for name in ("frames_note",) if name in facts}
        return kept | {
            "about": about,
            "data": data,
            "training": asdict(self.overlap),
            "fitted_on": self.fitted_on,
        }

    def evaluated(self, scored: "Scored", held_out: Any = None) -> "Evaluation":
        """The evaluation of the scores."""
        from virnucpro_core.evaluation.evaluation import evaluate as evaluate_scores

        about = "A group is what the table says, or else a record; equal sequences are one group."
        return evaluate_scores(scored, self.settings, self.run(about), held_out)

    def finish(self, evaluation: "Evaluation") -> None:
        """Write the evaluation, unless another one is in --out by now, and print its main figures."""
        from virnucpro_core.evaluation.evaluation import PAGE, save
        from virnucpro_core.evaluation.page import write_page

        self._check_folder()
        save(evaluation, self.out)
        write_page(self.out / PAGE, evaluation)
        show_evaluation(evaluation)
        click.echo(f"evaluation: {(self.out / PAGE).resolve()}")
