"""The command `train`: arguments and help."""

from pathlib import Path
from typing import Any

import click

from virnucpro_assets.cli.labelled import FILE, FRAMES, MEASURES, SEQUENCES, numbers, show_evaluation
from virnucpro_assets.cli.options import FORCE, PATH, PRECISIONS, TopicCommand, option, topic, with_options
from virnucpro_assets.cli.options import out as out_option
from virnucpro_assets.platform.startup import lasting_imports

ENCODERS = topic(
    "Models",
    option("--dnabert", required=True, type=PATH, help="Folder of the DNABERT-S weights."),
    option("--esm2", required=True, type=PATH, help="Folder of the ESM-2 weights, of any size."),
)
TRAINING = topic(
    "Training",
    option("--chunk-size", default=500, show_default=True, type=click.IntRange(6), help="Bases in a chunk."),
    option(
        "--augment",
        metavar="N,N,...",
        callback=numbers,
        help="Train on chunks of these sizes as well, e.g. 300,400.",
    ),
    option(
        "--seeds",
        default=3,
        show_default=True,
        type=click.IntRange(1, 100),
        help="Train so many times and keep the best.",
    ),
    option("--epochs", default=200, show_default=True, type=click.IntRange(1), help="Epochs, at most."),
    option(
        "--patience",
        default=20,
        show_default=True,
        type=click.IntRange(1),
        help="Epochs without progress before the end.",
    ),
    option(
        "--learning-rate",
        default=0.0002,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        help="Learning rate at the start.",
    ),
)
LENGTHS = topic(
    "Measures",
    option(
        "--lengths",
        metavar="N,N,...",
        callback=numbers,
        help="Evaluate pieces of these lengths, cut from the held-out records.  [default: whole records]",
    ),
)
COMPUTING = topic(
    "Computing",
    option("--device", default="cuda", show_default=True, help="cpu, cuda, or one GPU such as cuda:1."),
    option(
        "--precision",
        default="float32",
        show_default=True,
        type=PRECISIONS,
        help="Precision of the encoders.",
    ),
)
OUTPUT = topic("Output", out_option("Folder for the new classifier.", whole=True, models=True), FORCE)


@click.command(cls=TopicCommand)
@click.argument("fasta", nargs=-1, type=FILE)
@with_options(SEQUENCES, ENCODERS, FRAMES, TRAINING, LENGTHS, MEASURES, COMPUTING, OUTPUT)
def train(out: Path, *, force: bool, **options: Any) -> None:
    """Train a classifier for a pair of encoders.

    Whole groups are held out: a part says when to stop and which seed is best, another part is only evaluated. The
    folder --out holds the classifier, its evaluation (evaluation.html) and a model card; share it as it is.

    \b
    Example:
      virnucpro train --virus v.fa --others o.fa \\
        --dnabert dnabert-folder --esm2 esm2-folder --out classifier
    """
    with lasting_imports():
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_core.evaluation.evaluation import EvaluationSettings
        from virnucpro_core.evaluation.trained import publish_trained
        from virnucpro_core.files.outputs import making_folder
        from virnucpro_core.files.overwriting import keep_inputs
        from virnucpro_core.models.fitting import Recipe
        from virnucpro_core.models.profiles import note_of
        from virnucpro_core.models.training import TrainingSettings
        from virnucpro_core.models.training import train as train_seeds
        from virnucpro_core.samples.combined import check_of_use, check_open_frames
        from virnucpro_core.samples.settings import SampleSettings
        from virnucpro_core.sequences.labelled import LabelledInput

    labelled = LabelledInput(*(options.pop(name) for name in ("virus", "others", "fasta", "labels")))
    seed = options.pop("seed")
    measuring = EvaluationSettings(0.5, options.pop("length_bins"), options.pop("bootstrap"), seed)
    recipe = Recipe(
        epochs=options.pop("epochs"),
        seed=seed,
        patience=options.pop("patience"),
        learning_rate=options.pop("learning_rate"),
        class_weights=True,
    )
    dnabert, esm2 = options.pop("dnabert"), options.pop("esm2")
    given = {name: options.pop(name) for name in ("frames", "min_open")}
    known = {name: value for name, value in given.items() if value is not None}
    frames = SampleSettings(chunk_size=options["chunk_size"], **known)
    read = [*labelled.files, *([labelled.labels] if labelled.labels else []), dnabert, esm2]
    keep_inputs([out], read)
    check_of_use(given, [(frames, ())])
    check_open_frames(frames)
    device = platform_from_environment().compute_on(options.pop("device"))
    with making_folder(out, force=force) as check:
        with device.held() as held:
            settings = TrainingSettings(device=held, recipe=recipe, min_open=frames.open_length, **options)
            trained = train_seeds(labelled, dnabert, esm2, settings)
        note = note_of(trained.facts["trained_on"])
        evaluation = publish_trained(trained, out, measuring, note=note, check=check)
    for k, one in enumerate(trained.facts["seeds"]):
        kept = ", kept" if k == trained.best else ""
        click.echo(
            f"seed {one['seed']}: loss {one['held_out_loss']:.4f} after {one['best_epoch']} epochs{kept}"
        )
    click.echo("on groups that were held out:")
    show_evaluation(evaluation)
    click.echo(f"classifier: {out}")
