"""The commands `evaluate` and `calibrate`: measure how good the calls are, and what the scores stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.labelled import (
    Command,
    calibration_path,
    frames_options,
    labelled_options,
    measuring_options,
    numbers,
    show_evaluation,
)
from virnucpro_assets.platform.startup import lasting_imports

if TYPE_CHECKING:
    from virnucpro_assets.platform.resource import Platform
    from virnucpro_core.evaluation.evaluation import Evaluation
    from virnucpro_core.evaluation.scores import Scored
    from virnucpro_core.models.profiles import ResolvedProfile

PATH = click.Path(path_type=Path)


def sample_options(command: Command) -> Command:
    """The options of the sample that is predicted."""
    options = (
        click.option(
            "--out", required=True, type=PATH, help="Folder for the evaluation and the predictions."
        ),
        click.option(
            "--lengths",
            metavar="N,N,...",
            callback=numbers,
            help="Cut the records into pieces of these lengths; a record is their group.",
        ),
        click.option("--profile", help="Encoders and classifier.  [default: VIRNUCPRO_PROFILE or esm2-3b]"),
        click.option(
            "--chunk-size", type=int, help="Bases in a chunk.  [default: VIRNUCPRO_CHUNK_SIZE or 500]"
        ),
        click.option(
            "--classifier",
            type=click.Path(exists=True, file_okay=False, resolve_path=True),
            help="Folder of another classifier.",
        ),
        click.option(
            "--gpus", default=0, type=click.IntRange(0), help="Number of lanes.  [default: every GPU]"
        ),
        click.option("--device", type=click.Choice(["cuda", "cpu"]), help="[default: by profile]"),
        click.option(
            "--precision", type=click.Choice(["float32", "float16", "fp8"]), help="[default: by device]"
        ),
        click.option("--sample", default="", help="Name of the sample.  [default: made from the input]"),
        click.option("--fresh/--resume", default=False, help="Start again, or resume.  [default: resume]"),
        click.option("--force", is_flag=True, help="Replace files that are not of this evaluation."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@labelled_options
@sample_options
@frames_options
@click.option(
    "--cutoff", default=0.5, show_default=True, help="Score from which a record counts as called virus."
)
@click.option(
    "--calibration",
    metavar="FILE|none",
    callback=lambda _context, _option, value: calibration_path(value),
    help="Calibration to evaluate as well.  [default: the one beside the classifier]",
)
@click.option("--prior", type=float, help="Share of virus for probabilities.  [default: estimated]")
@measuring_options
def evaluate(cutoff: float, **options: Any) -> None:
    """Measure how good the calls are, on labelled sequences.

    Give two FASTA files (--virus, --others), or FASTA with a table (--labels). The sequences go through the same
    graph as with `predict`. The same command resumes. --out then holds evaluation.html, evaluation.json and
    evaluation.tsv.

    \b
    Examples:
      virnucpro evaluate --virus v.fa --others o.fa --out evaluation
      virnucpro evaluate all.fa --labels t.tsv --lengths 500,1000 --out e
    """
    work = _Work(options | {"cutoff": cutoff})
    scored = work.scored()
    work.finish(work.evaluated(scored))


@click.command()
@labelled_options
@sample_options
@frames_options
@click.option(
    "--method",
    type=click.Choice(["isotonic", "platt"]),
    default="isotonic",
    show_default=True,
    help="isotonic: any rising curve. platt: a logistic curve, for few records.",
)
@click.option("--save", type=PATH, help="File to write.  [default: beside the classifier]")
@measuring_options
def calibrate(method: Any, save: Path | None, **options: Any) -> None:
    """Find out which probability a score stands for.

    Takes labelled sequences as `evaluate` does, but not those that the classifier was trained on. One curve is fitted
    for each length bin. The calibration is written beside the classifier, and `predict` then adds the columns
    `probability` and `fdr`. The evaluation in --out shows how well it does on groups that it was not fitted to.

    \b
    Example:
      virnucpro calibrate all.fa --labels t.tsv --lengths 500,1000 --out c
    """
    work = _Work(options | {"calibration": "none"})
    target = work.calibration_target(save)
    scored = work.scored()
    from virnucpro_core.evaluation.calibrating import fit_calibration, held_out
    from virnucpro_core.evaluation.evaluation import length_ranges

    ranges = length_ranges(work.settings.length_bins)
    out_of_fold = held_out(scored.records, ranges, method, work.settings.seed)
    facts = work.run("") | {"held_out": out_of_fold.facts}
    made = fit_calibration(
        scored.records,
        ranges,
        method=method,
        classifier=work.profile.classifier_fingerprint,
        chunk_size=work.profile.chunk_size,
        facts=facts,
        min_open=work.sample_settings.open_length,
    )
    made.save(target)
    work.finish(work.evaluated(scored, out_of_fold))
    for curve in made.curves:
        if curve.reason:
            click.echo(f"{curve.words}: not calibrated: {curve.reason}")
    click.echo(f"calibration: {target}")


class _Work:
    """One evaluation: its sample, its folder and its settings. Everything that can be refused is refused here."""

    def __init__(self, options: dict[str, Any]) -> None:
        with lasting_imports():
            from virnucpro_assets.platform.resource import platform_from_environment
            from virnucpro_core.evaluation.evaluation import EvaluationSettings
            from virnucpro_core.files.digests import sha256_json
            from virnucpro_core.results.delivery import check_out
            from virnucpro_core.samples.sample import check_key
            from virnucpro_core.samples.settings import check_min_open
            from virnucpro_core.sequences.labelled import LabelledInput

        self.labelled: LabelledInput = LabelledInput(
            options.pop("virus"), options.pop("others"), options.pop("fasta"), options.pop("labels")
        )
        cutoff = options.get("cutoff", 0.5)
        self.settings: EvaluationSettings = EvaluationSettings(
            cutoff, options.pop("length_bins"), options.pop("bootstrap"), options.pop("seed")
        )
        self.out: Path = options.pop("out")
        self.lengths: tuple[int, ...] = options.pop("lengths")
        self.fresh, self.force = options.pop("fresh"), options.pop("force")
        name = options.pop("sample")
        self.platform: Platform = platform_from_environment().asked(
            gpus=options.pop("gpus"), device=options.pop("device") or ""
        )
        self.sample_settings = self.platform.sample_settings(**options)
        self.profile: ResolvedProfile = self.platform.profile_of(self.sample_settings)
        about = [str(f.resolve()) for f in self.labelled.files], self.lengths, self.sample_settings.profile
        check_min_open(options["min_open"], [self.sample_settings])
        opened = [n] if (n := self.sample_settings.open_length) else []
        key = sha256_json([*about, self.sample_settings.chunk_size, options["classifier"], *opened])
        self.name = check_key(name) if name else f"evaluation-{key[:12]}"
        self.files = [self.out / "pieces.fa"] if self.lengths else self.labelled.files
        check_owner(self.out, self.name, force=self.force)
        if not self.lengths:
            check_out(
                self.predictions,
                self.name,
                self.files,
                force=self.force,
                fresh=self.fresh,
                home=self.platform.folder,
            )
        self.truth = self.labelled.truth()

    @property
    def predictions(self) -> Path:
        """The folder for the sample's results."""
        return self.out / "predictions"

    def calibration_target(self, save: Path | None) -> Path:
        """Where the calibration will be written. Raises UsageError if it must not or cannot be written there."""
        from virnucpro_core.errors import UsageError
        from virnucpro_core.models.profiles import DEMO
        from virnucpro_core.results.calibration import calibration_file
        from virnucpro_core.results.delivery import check_writable

        target = save or calibration_file(
            self.profile.classifier, self.profile.chunk_size, self.sample_settings.open_length
        )
        if target.parent.resolve().is_relative_to(DEMO):
            raise UsageError(
                "the demo's classifier is part of the program", remedy="give --save FILE for the calibration"
            )
        if target.exists() and not self.force:
            raise UsageError(
                "already exists", where=target, remedy="give --force to replace it, or --save FILE"
            )
        check_writable(target.parent)
        return target

    def scored(self) -> "Scored":
        """Predict the sample, or resume it, and read its scores. Raises the sample's error."""
        with lasting_imports():
            from virnucpro_assets.cli.progress import Said, show_predictions
            from virnucpro_assets.running.predict import registered
            from virnucpro_assets.running.request import Request, Wanted
            from virnucpro_core.evaluation.scores import read_scored
            from virnucpro_core.results.delivery import check_out
            from virnucpro_core.sequences.labelled import write_pieces

        if self.lengths:
            self.out.mkdir(parents=True, exist_ok=True)
            self.truth = write_pieces(self.labelled, self.truth, self.lengths, self.files[0])
            check_out(
                self.predictions,
                self.name,
                self.files,
                force=self.force,
                fresh=self.fresh,
                home=self.platform.folder,
            )
        wanted = Wanted(self.name, tuple(self.files), self.sample_settings, self.predictions)
        request = Request(self.platform, (wanted,), {}, named=True)
        known, failures = registered(request, fresh=self.fresh)
        samples = list(known.values())
        failures |= (
            show_predictions(samples, self.platform, lambda _: self.predictions, Said()) if known else {}
        )
        for error in failures.values():
            raise error
        return read_scored(self.predictions, self.truth)

    def run(self, about: str) -> dict[str, Any]:
        """What was evaluated: from the sample's `run.json`, and the labelled data."""
        import json

        from virnucpro_core.files.digests import sha256_file
        from virnucpro_core.results.folder import RUN

        facts = json.loads((self.predictions / RUN).read_bytes())
        files = [*self.labelled.files, *([self.labelled.labels] if self.labelled.labels else [])]
        data: dict[str, Any] = {file.name: sha256_file(file) for file in files}
        data |= {"records": len(self.truth), "groups": len({one.group for one in self.truth.values()})}
        if self.lengths:
            data["pieces of bases"] = ", ".join(map(str, self.lengths))
        kept = {
            name: facts[name] for name in ("sample", "profile", "note", "settings", "versions", "digests")
        }
        kept |= {name: facts[name] for name in ("frames_note",) if name in facts}
        return kept | {"about": about, "data": data}

    def evaluated(self, scored: "Scored", held_out: Any = None) -> "Evaluation":
        """The evaluation of the scores."""
        from virnucpro_core.evaluation.evaluation import evaluate as evaluate_scores

        about = "A group is what the table says, or else a record; equal sequences are one group."
        return evaluate_scores(scored, self.settings, self.run(about), held_out)

    def finish(self, evaluation: "Evaluation") -> None:
        """Write the evaluation and print its main figures."""
        from virnucpro_core.evaluation.evaluation import PAGE, save
        from virnucpro_core.evaluation.page import write_page

        save(evaluation, self.out)
        write_page(self.out / PAGE, evaluation)
        show_evaluation(evaluation)
        click.echo(f"evaluation: {(self.out / PAGE).resolve()}")


def check_owner(out: Path, sample: str, *, force: bool) -> None:
    """Raises UsageError if `out` has the evaluation of another sample, or one that cannot be read, and not `force`."""
    import json

    from virnucpro_core.errors import UsageError
    from virnucpro_core.evaluation.evaluation import JSON
    from virnucpro_core.results.delivery import check_writable

    check_writable(out)
    if force or not (out / JSON).exists():
        return
    try:
        owner = json.loads((out / JSON).read_bytes())["run"]["sample"]
    except (ValueError, KeyError, TypeError):
        owner = ""
    if owner != sample:
        raise UsageError(
            f"holds the evaluation of {owner or 'something else'!r}",
            where=out,
            remedy="give another --out, or --force to replace it",
        )
