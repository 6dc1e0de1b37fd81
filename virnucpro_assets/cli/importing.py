"""The command `import-features`: embeddings that the published tool computed become those of a sample."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.startup import lasting_imports

if TYPE_CHECKING:
    from virnucpro_assets.platform.resource import Platform
    from virnucpro_core.samples.sample import Sample

PATHS = click.Path(exists=True, path_type=Path)


@click.command("import-features")
@click.argument("folders", nargs=-1, required=True, type=PATHS)
@click.option("--sample", "name", required=True, help="Name of the sample.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=PATHS,
    help="The sample's sequence file, if the sample is new. Can be given several times.",
)
@click.option(
    "--chunk-size", type=int, help="Bases in a chunk.  [default: that of the sample; 500 for a new one]"
)
@click.option("--profile", help="For a new sample: its profile.  [default: VIRNUCPRO_PROFILE or esm2-3b]")
@click.option("--trust-ids", is_flag=True, help="Match vectors by id alone, without comparing sequences.")
@click.option("--force", is_flag=True, help="Replace embeddings that the sample has.")
def import_features(
    folders: tuple[Path, ...],
    name: str,
    inputs: tuple[Path, ...],
    *,
    trust_ids: bool,
    force: bool,
    **settings: Any,
) -> None:
    """Import embeddings of the published tool.

    FOLDERS hold what that tool or its fork computed: *_merged.pt, or *_DNABERT_S.pt and *_ESM.pt, and beside them the
    FASTA files of the frames. Every vector is matched to its frame by id and sequence. `virnucpro predict` of the
    sample then begins with the classifier. Results say that the embeddings were imported. No pickle is executed.

    \b
    Example:
      virnucpro import-features reads_nucleotide reads_protein reads_merged \\
        --sample reads --input reads.fa
      virnucpro predict reads.fa --sample reads --out results
    """
    with lasting_imports():
        from virnucpro_assets.platform.environment import dagster_home
        from virnucpro_assets.platform.resource import platform_from_environment
        from virnucpro_core.pipeline.import_features import find_features
        from virnucpro_core.pipeline.import_features import import_features as import_into
        from virnucpro_core.samples.home import check_home

    found = find_features(folders)
    platform = platform_from_environment()
    check_home(platform.folder, dagster_home())
    with _nothing_left_of_a_new_sample(platform.folder, name):
        sample = _sample(platform, name, inputs, **settings)
        made = import_into(
            sample,
            lambda record: platform.profile_of(sample.settings, record.features),
            found,
            on_file=lambda path: click.echo(f"reading {path}", err=True),
            trust_ids=trust_ids,
            force=force,
        )
    where = _where(platform, sample)
    click.echo(
        f"{name}: {counted(made.vectors, 'vector')} of {counted(len(made.record.files), 'file')} imported for"
        f" {counted(made.frames, 'frame')}, matched by {made.record.matched_by}, sha256 {made.record.digest[:12]};"
        f" next: virnucpro predict {' '.join(str(f.path) for f in sample.inputs)} --sample {name}"
        f" --profile {sample.settings.profile} --chunk-size {sample.settings.chunk_size}{where} --out DIR"
    )


def _where(platform: "Platform", sample: "Sample") -> str:
    """The option with which the classifier computes here if the profile's GPU is missing; "" if none is needed."""
    from virnucpro_core.errors import DeviceError

    try:
        platform.check_device(sample.settings)
    except DeviceError:
        return " --device cpu"
    return ""


@contextlib.contextmanager
def _nothing_left_of_a_new_sample(home: Path, name: str) -> Iterator[None]:
    """Delete the sample if the block fails and the sample was not there before."""
    from virnucpro_core.samples.removal import remove_sample
    from virnucpro_core.samples.sample import check_key, is_registered

    was_there = is_registered(home, check_key(name))
    try:
        yield
    except BaseException:
        if not was_there:
            remove_sample(home, name)
        raise


def _sample(
    platform: "Platform", name: str, inputs: Sequence[Path], *, chunk_size: int | None, profile: str | None
) -> "Sample":
    """The known sample of this name, or a new one of the inputs. Raises UsageError if they do not agree."""
    from virnucpro_core.errors import UsageError
    from virnucpro_core.samples.inputs import files_of
    from virnucpro_core.samples.sample import check_key, is_registered, open_sample, register
    from virnucpro_core.sequences.names import in_order

    home = platform.folder
    if not is_registered(home, check_key(name)):
        if not inputs:
            raise UsageError(
                f"sample {name!r} is not known", remedy="name its sequence file with --input FILE"
            )
        new = platform.sample_settings(chunk_size=chunk_size, profile=profile, frames="full")
        return register(home, name, in_order(files_of(inputs)), new)
    sample = open_sample(home, name)
    if chunk_size not in (None, sample.settings.chunk_size):
        raise UsageError(
            f"sample {name!r} has chunks of {sample.settings.chunk_size} bases",
            remedy="leave --chunk-size out, or take another --sample name",
        )
    if sample.settings.open_length:
        raise UsageError(
            f"sample {name!r} has open frames, for which the published tool has no features",
            remedy="take another --sample name",
        )
    return register(home, name, in_order(files_of(inputs)), sample.settings) if inputs else sample
