"""`virnucpro config`: which settings hold, and from where each comes."""

import json
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from virnucpro_assets.cli.options import JSON
from virnucpro_assets.cli.places import PLACES


@click.command()
@JSON
@click.pass_context
def config(context: click.Context, *, as_json: bool) -> None:
    """Show which settings hold, and from where.

    An option of a command is above an environment variable, the variable above the configuration file, and the file
    above the default. The file is VIRNUCPRO_HOME/virnucpro.toml, with lines such as chunk-size = 300. Its keys are the
    lower-case names shown here. The variable of chunk-size is VIRNUCPRO_CHUNK_SIZE, and so on for all of them; --json
    shows each name.

    For samples from the inbox, the variables are those of `virnucpro ui` or the daemon. A settings file in the inbox
    is above them, and so is a cell of a sample sheet.

    \b
    Examples:
      virnucpro config
      virnucpro config --json
    """
    from virnucpro_assets.platform.environment import home_folder
    from virnucpro_core.samples.settings_file import NAME

    file = home_folder() / NAME
    rows = list(_rows(context))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    click.echo(f"configuration file: {file}{'' if file.exists() else ' (there is none)'}")
    width = max(len(row["setting"]) for row in rows)
    for row in rows:
        value = row["value"]
        shown = "-" if value in ("", None) else str(value).lower() if isinstance(value, bool) else value
        click.echo(f"{row['setting']:{width}}  {shown}  ({row['from']})")


def _rows(context: click.Context) -> Iterator[dict[str, Any]]:
    from virnucpro_assets.cli.known_settings import known_settings
    from virnucpro_assets.platform.environment import POSTGRES_URL
    from virnucpro_assets.platform.places import origin

    for one in known_settings():
        variable = one.variable
        value, whence = variable.read(), origin(variable)
        if variable.name == POSTGRES_URL:  # it holds a password
            value = "set" if value else ""
        if variable.setting == "precision" and whence == "default":
            value = "by device"
        if variable.default == "by device" and value in (0, -1, ""):
            value = variable.default
        for place in PLACES.get(variable.name, ()):
            if context.get_parameter_source(place.removeprefix("--")) is ParameterSource.COMMANDLINE:
                whence = place
        yield {
            "setting": variable.key or variable.name,
            "value": value,
            "from": whence,
            "option": " or ".join(one.options),
            "variable": variable.name,
        }
