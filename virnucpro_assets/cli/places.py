"""The options `--home` and `--scratch` of every command: where this command keeps its files."""

from pathlib import Path

import click

from virnucpro_assets.platform.places import check_configuration, use_home, use_scratch

# Variable -> its options.
PLACES = {"VIRNUCPRO_HOME": ("--home",), "DAGSTER_HOME": ("--scratch",)}
FOLDER = click.Path(file_okay=False, path_type=Path)


def add_places(command: click.Command) -> None:
    """Add both options to a command, or to all commands of a group."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            add_places(one)
        if not command.invoke_without_command:
            return
    command.params += [
        click.Option(
            ["--home"],
            type=FOLDER,
            expose_value=False,
            is_eager=True,  # before --scratch, wherever it stands
            callback=_home,
            help="Folder for samples, models and records, instead of VIRNUCPRO_HOME.",
        ),
        click.Option(
            ["--scratch"],
            type=FOLDER,
            expose_value=False,
            callback=_scratch,
            help="Folder on a local disk for Dagster's records only, instead of DAGSTER_HOME.",
        ),
    ]


def _home(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        use_home(folder)
    if not context.resilient_parsing:
        check_configuration()


def _scratch(_: click.Context, __: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        use_scratch(folder)
