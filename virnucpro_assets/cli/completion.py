"""`virnucpro completion`: prints what a shell needs to complete commands and options with the Tab key."""

import click

PROGRAM = "virnucpro"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options.

    Put the line of the example into the start file of your SHELL, such as ~/.bashrc.

    \b
    Example:
      eval "$(virnucpro completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
