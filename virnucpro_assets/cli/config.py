"""`virnucpro config`: which settings hold, and from where each comes."""

import json

import click

from virnucpro_assets.cli.options import JSON


@click.command()
@JSON
def config(*, as_json: bool) -> None:
    """Show which settings hold, and from where.

    An option of a command is above an environment variable, the variable above the configuration file, and the file
    above the default. The file is VIRNUCPRO_HOME/virnucpro.toml, with lines such as chunk-size = 300. Its keys are the
    lower-case names shown here.

    \b
    Example:
      virnucpro config
    """
    from virnucpro_assets.platform.environment import (
        FILE_KEYS,
        POSTGRES_URL,
        VARIABLES,
        configured,
        home_folder,
        origin,
        unknown_variables,
    )
    from virnucpro_core.samples.settings import SampleSettings
    from virnucpro_core.samples.settings_file import NAME

    home = home_folder()
    rows = []
    for variable in VARIABLES:
        value = variable.read()
        if variable.name == POSTGRES_URL:  # it holds a password
            value = "set" if value else ""
        if variable.default == "by device" and value in (0, -1, ""):
            value = variable.default
        is_key = variable.setting in FILE_KEYS
        key = variable.setting.replace("_", "-") if is_key else variable.name
        rows.append((key, value, origin(variable.name, variable.setting)))
    given = configured(home)
    for name, field in SampleSettings.__dataclass_fields__.items():
        if name not in {variable.setting for variable in VARIABLES}:
            default = "by device" if name == "precision" else field.default
            rows.append((name.replace("_", "-"), given.get(name, default), origin("", name)))
    if as_json:
        for key, value, whence in rows:
            click.echo(json.dumps({"setting": key, "value": value, "from": whence}))
        return
    file = home / NAME
    click.echo(f"configuration file: {file}{'' if file.exists() else ' (there is none)'}")
    width = max(len(key) for key, *_ in rows)
    for key, value, whence in rows:
        click.echo(f"{key:{width}}  {'-' if value in ('', None) else value}  ({whence})")
    for name in unknown_variables():
        click.echo(f"{name} is set, but there is no variable of this name: it changes nothing", err=True)
