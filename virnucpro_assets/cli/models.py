"""The commands `models`, `doctor` and `metrics`: arguments and help."""

from pathlib import Path
from typing import Any

import click

from virnucpro_assets.cli.options import FORCE
from virnucpro_assets.cli.options import out as out_option
from virnucpro_assets.cli.words import counted
from virnucpro_assets.platform.startup import lasting_imports

PATH = click.Path(path_type=Path)
FILES = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def models() -> None:
    """Fetch, import, list and verify model weights.

    \b
    Examples:
      virnucpro models list
      virnucpro models fetch dnabert-s
    """


@models.command("list")
def list_models() -> None:
    """List the published models, which are installed, and your own.

    Your own are models that you trained or imported into the model store. A classifier in another folder is used with
    `--classifier FOLDER` and not listed.

    \b
    Example:
      virnucpro models list
    """
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.models.sources import SOURCES

    root = _store()
    own = sorted(
        path.parent.name for path in root.glob(f"[!.]*/{MANIFEST}") if path.parent.name not in SOURCES
    )
    width = max(16, *map(len, own)) if own else 16
    for name, source in SOURCES.items():
        state = f"{source.shown_size} to fetch" if source.files else f"{source.shown_size} to import"
        if (root / name / MANIFEST).exists():
            state = "installed"
        click.echo(f"{name:{width}} {state:20} {source.address}")
    for name in own:
        click.echo(f"{name:{width}} {'own':20} {_described(root / name)}")
    if any(not source.files for source in SOURCES.values()):
        click.echo("to import: download it yourself, then `virnucpro models import`")


def _described(folder: Path) -> str:
    """What the manifest says of a model: `classifier for chunks of 300 bases, trained here`."""
    from virnucpro_core.errors import WeightsError, printable
    from virnucpro_core.files.manifest import read_manifest

    try:
        facts = read_manifest(folder)
    except WeightsError as error:
        return str(error)
    chunks = f" for chunks of {facts['chunk_size']} bases" if facts.get("chunk_size") else ""
    return printable(f"{facts.get('kind', 'model')}{chunks}, {facts.get('source') or 'of unknown origin'}")


@models.command()
@click.argument("names", nargs=-1)
@click.option("--profile", help="Fetch all published models of this profile.")
@click.option(
    "--from", "place", default="", help="Folder or address that has the published files as MODEL/FILE."
)
@click.option(
    "--golden/--no-golden", default=True, help="Run the golden self-check at the end.  [default: run]"
)
@click.option(
    "--force", is_flag=True, help="Replace models of these names that you imported or made yourself."
)
def fetch(names: tuple[str, ...], profile: str | None, place: str, *, golden: bool, force: bool) -> None:
    """Download published weights and convert them.

    NAMES are those of `virnucpro models list`. The revisions are pinned. Size and sha256 of the encoders' weights are
    checked while they arrive. No sha256 is published of the classifiers, nor of ESM-2's small JSON files: a line names
    each such file. Every .pth and .bin file must be whole (CRC-32). A download that broke off is resumed by the same
    command. A model that the store has is not fetched again, and another one of that name is not replaced.
    HF_ENDPOINT names a server in place of huggingface.co; proxies are those of HTTPS_PROXY and NO_PROXY.

    \b
    Examples:
      virnucpro models fetch --profile esm2-3b
      virnucpro models fetch dnabert-s --from /media/usb
    """
    from virnucpro_assets.cli.transfer import shown_transfer
    from virnucpro_assets.platform.environment import hub_endpoint
    from virnucpro_core.files.disk import shown_bytes
    from virnucpro_core.files.overwriting import keep_inputs
    from virnucpro_core.models.downloads import files_from
    from virnucpro_core.models.fetching import fetch_model, to_fetch
    from virnucpro_core.models.sources import SOURCES
    from virnucpro_core.models.store import ModelStore, fetchable

    store = ModelStore(_store())
    wanted = list(dict.fromkeys([*names, *_of_profile(profile)]))
    for name in wanted:
        fetchable(name, store.path(name))
        if place:
            keep_inputs([store.path(name)], [Path(place) / name], remedy="give --from another folder")
    for name in wanted:
        to_fetch(store, name, force=force)
    click.echo(
        f"{counted(len(wanted), 'model')}, {shown_bytes(sum(SOURCES[n].size for n in wanted))}", err=True
    )
    with shown_transfer() as on_bytes:
        files = files_from(place, endpoint=hub_endpoint(), on_bytes=on_bytes)
        for name in wanted:
            click.echo(f"{name}: {fetch_model(store, name, files, force=force)}")
            if loose := [file.name for file in SOURCES[name].files if file.sha256 is None]:
                click.echo(f"{name}: no sha256 is published of {', '.join(loose)}: not compared", err=True)
    if golden:
        from virnucpro_assets.cli.golden import golden_after_fetch

        golden_after_fetch(store.root, wanted)


def _of_profile(name: str | None) -> list[str]:
    """The published models of a profile. Prints which of its classifiers are not published. Raises UsageError."""
    from virnucpro_core.errors import UsageError

    if name is None:
        if not click.get_current_context().params["names"]:
            raise UsageError(
                "no model is named", remedy="give names of `virnucpro models list`, or --profile NAME"
            )
        return []
    from virnucpro_core.models.profiles import DEMO_PROFILE, PROFILES, published_models

    if name not in PROFILES or name == DEMO_PROFILE:
        what = "ships with the package" if name == DEMO_PROFILE else "is not known"
        known = ", ".join(profile for profile in PROFILES if profile != DEMO_PROFILE)
        raise UsageError(f"the profile {name!r} {what}", remedy=f"profiles: {known}")
    found = published_models(PROFILES[name])
    for chunk_size, classifier in PROFILES[name].classifiers.items():
        if classifier not in found:
            click.echo(
                f"no classifier is published for chunks of {chunk_size}: train one with `virnucpro train`",
                err=True,
            )
    return found


@models.command()
@click.argument("names", nargs=-1)
@click.option("--profile", help="Take all models of this profile that are in the store.")
@out_option("Archive to write, such as models.tar.")
@FORCE
def bundle(names: tuple[str, ...], profile: str | None, out: Path, *, force: bool) -> None:
    """Write models to one archive.

    It is for machines without network: see `unbundle`. It holds a manifest with the sha256 of every file. With your own
    classifiers travel their calibrations, model card and evaluation. The sha256 of the archive is printed.

    \b
    Example:
      virnucpro models bundle --profile esm2-3b --out models.tar
    """
    from virnucpro_assets.cli.transfer import shown_transfer
    from virnucpro_core.errors import UsageError
    from virnucpro_core.files.outputs import check_new_files, making_files
    from virnucpro_core.files.overwriting import keep_inputs
    from virnucpro_core.models.bundles import write_bundle
    from virnucpro_core.models.store import ModelStore

    check_new_files([out], force=force)
    store = ModelStore(_store())
    wanted = [*names, *_of_profile(profile)]
    if profile is not None and (absent := store.missing(wanted[len(names) :])):
        click.echo(f"not in the store, so not in the archive: {', '.join(absent)}", err=True)
        wanted = [name for name in wanted if name in names or name not in absent]
    if not wanted:
        remedy = (
            f"run `virnucpro models fetch --profile {profile}` first"
            if profile
            else "give names or --profile"
        )
        raise UsageError("there is no model to write", where=_store(), remedy=remedy)
    keep_inputs([out], map(store.path, wanted))
    with making_files([out], force=force) as check, shown_transfer() as on_bytes:
        sha256 = write_bundle(store, wanted, out, on_bytes=on_bytes, check=check)
    click.echo(f"{sha256}  {out}")


@models.command()
@click.argument("archive", type=FILES)
@click.option("--force", is_flag=True, help="Replace models of the store that differ.")
def unbundle(archive: Path, *, force: bool) -> None:
    """Put the models of an archive into the store.

    ARCHIVE is a file that `virnucpro models bundle` wrote. Each model is verified before it appears in the store.

    \b
    Example:
      virnucpro models unbundle models.tar
    """
    from virnucpro_assets.cli.transfer import shown_transfer
    from virnucpro_core.files.manifest import MANIFEST
    from virnucpro_core.models.bundles import read_bundle
    from virnucpro_core.models.store import ModelStore

    with shown_transfer() as on_bytes:
        found = read_bundle(archive, ModelStore(_store()), force=force, on_bytes=on_bytes)
    for model in found:
        said = "" if MANIFEST in model.written else f" ({', '.join(model.written)} added)"
        click.echo(f"{model.name}: {model.folder}{said if model.written else ' (was there already)'}")


@models.command("import")
@click.argument("kind", type=click.Choice(["esm2", "dnabert-s", "classifier"]))
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@out_option("Folder to create.", whole=True, models=True)
@click.option(
    "--chunk-size", type=click.IntRange(6), help="For a classifier: bases in the chunks of its training."
)
@FORCE
def import_(kind: Any, path: Path, out: Path, chunk_size: int | None, *, force: bool) -> None:
    """Convert weights that you already have.

    PATH is a fair-esm .pt file, a Hugging Face folder, or the .pth file of a classifier. No pickle is executed.

    \b
    Example:
      virnucpro models import classifier m.pth --chunk-size 500 --out folder
    """
    from virnucpro_core.files.outputs import making_folder
    from virnucpro_core.files.overwriting import keep_inputs
    from virnucpro_core.models.convert import import_model

    keep_inputs([out], [path])
    with making_folder(out, force=force) as check:
        click.echo(import_model(kind, path, out, chunk_size=chunk_size, check=check))


@models.command()
@click.argument("folders", nargs=-1, type=PATH)
@click.option("--golden", is_flag=True, help="Compare the models' answers with those of the published tool.")
@click.option(
    "--device", default="cpu", show_default=True, help="For --golden: cpu, cuda, or a GPU such as cuda:1."
)
@click.option(
    "--precision",
    "--dtype",
    "dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "fp8"]),
    help="For --golden: precision.",
)
def verify(folders: tuple[Path, ...], device: str, dtype: str, *, golden: bool) -> None:
    """Verify model files against their manifests.

    Without FOLDERS, all models in the store are verified. With --golden, the published models also compute eight frames
    whose vectors and scores by the published tool are known. One line for each model says how far they differ, and
    why if they differ too much.

    \b
    Examples:
      virnucpro models verify
      virnucpro models verify --golden --device cuda --precision float16
    """
    if golden:
        from virnucpro_assets.cli.golden import golden_folders, verify_golden, without_answers

        beside = [] if folders else without_answers(path.name for path in _installed())
        verify_golden(golden_folders(_store(), folders), device, dtype, beside)
        return
    from virnucpro_core.files.manifest import verify as verify_folder

    found = folders or _installed()
    for folder in found:
        verify_folder(folder)
        click.echo(f"{folder}: verified")
    if not found:
        click.echo("no models in the store; see `virnucpro models list`")


@click.command()
@click.option("--profile", default="", help="Profile to check.  [default: VIRNUCPRO_PROFILE or esm2-3b]")
@click.option("--chunk-size", default=0, help="Bases in a chunk.  [default: VIRNUCPRO_CHUNK_SIZE or 500]")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where to compute.  [default: by profile]")
@click.option("--clear-failed", is_flag=True, help="Allow the use of GPUs that failed within the last hour.")
def doctor(profile: str, chunk_size: int, device: str | None, *, clear_failed: bool) -> None:
    """Check that this machine is ready to compute.

    Checks GPUs, which processes hold them, attention kernels, weights, folders, disk and the Dagster instance. The
    exit code is 2 if something is missing or differs.

    \b
    Example:
      virnucpro doctor --profile demo
    """
    with lasting_imports():
        from virnucpro_assets.cli import doctor
        from virnucpro_assets.cli.doctor import examine
        from virnucpro_assets.platform.resource import platform_from_environment

    platform = platform_from_environment().asked(device=device or "")
    for uuid in doctor.clear_failed(platform) if clear_failed else []:
        click.echo(f"{uuid} may be used again")
    found = list(examine(platform, profile or platform.profile, chunk_size or platform.chunk_size))
    for line in found:
        mark = {True: "ok", False: line.bad, None: ""}[line.good]
        click.echo(f"{mark:8}{line.name:24}{line.text}")
    if any(line.good is False for line in found):
        raise SystemExit(2)


@click.command()
@out_option("Write a file, for node_exporter's textfile collector.", required=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Serve http://127.0.0.1:PORT/metrics until interrupted."
)
def metrics(out: Path | None, port: int | None) -> None:
    """Print, write or serve metrics for Prometheus.

    The metrics describe samples, lanes, runs, GPUs and disk. Without an option they are printed.

    \b
    Examples:
      virnucpro metrics
      virnucpro metrics --port 9200
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.errors import UsageError
    from virnucpro_core.files.publish import publish_bytes

    try:
        from virnucpro_assets.cli.metrics import exposition, registry
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", remedy="run `pip install 'virnucpro[metrics]'`"
        ) from error
    if out is not None and port is not None:
        raise UsageError("--out and --port cannot be used together", remedy="give one of them")
    if port is not None:
        from prometheus_client import start_http_server

        _, thread = start_http_server(port, addr="127.0.0.1", registry=registry(home_folder()))
        click.echo(f"http://127.0.0.1:{port}/metrics")
        thread.join()
    elif out is not None:
        publish_bytes(out, exposition(home_folder()))
    else:
        click.echo(exposition(home_folder()).decode(), nl=False)


def _installed() -> tuple[Path, ...]:
    """The folders of the store's models."""
    from virnucpro_core.files.manifest import MANIFEST

    return tuple(path.parent for path in sorted(_store().glob(f"[!.]*/{MANIFEST}")))


def _store() -> Path:
    """The folder of the model store. Reading it needs neither torch nor Dagster."""
    from virnucpro_assets.platform.environment import models_folder, settings

    settings()  # so that this command, too, reports a variable that is not valid
    return models_folder()
