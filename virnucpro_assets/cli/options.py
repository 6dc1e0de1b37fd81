"""Options as the commands share them: one name and one text for each, and the topics under which help shows them.

    OUTPUT = topic("Output", option("--force", is_flag=True, help="..."))

    @click.command(cls=TopicCommand)
    @with_options(OUTPUT, LOOKS)
    def some_command(**options): ...

Imports only click, so that help stays fast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]
Topic = tuple[Decorator, ...]


class GivenPath(click.Path):
    """A path that says something: "" is what a variable that is not set leaves, and would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses the empty text."""
        if value == "":
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


PATH = GivenPath(path_type=Path)
PRECISIONS = click.Choice(["float32", "float16", "fp8"])


class TopicOption(click.Option):
    """An option that help shows below the name of its topic."""

    topic = ""


class TopicCommand(click.Command):
    """A command whose help shows the options topic by topic, in the order of their definition."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for param in sorted(options, key=lambda param: not getattr(param, "topic", "")):
            if (record := param.get_help_record(ctx)) is not None:
                rows.setdefault(getattr(param, "topic", "Other"), []).append(record)
        for topic, records in rows.items():
            with formatter.section(topic):
                formatter.write_dl(records)


def option(*names: str, **settings: Any) -> Decorator:
    """As `click.option`, for use in a topic."""
    return click.option(*names, **{"cls": TopicOption} | settings)


FORCE = option("--force", is_flag=True, help="Replace what is at --out.")
JSON = option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for programs.")
SAID = (
    option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    option("--verbose", "-v", is_flag=True, help="Also print how each lane computed."),
    JSON,
)


def out(meaning: str, *, required: bool = True, whole: bool = False, models: bool = False) -> Decorator:
    """`--out` or `-o`. It is refused in the folders that the program keeps in its home folder.

    whole: the command replaces the folder as a whole. models: it may lie in the model store.
    """

    def outside(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and not context.resilient_parsing:
            from virnucpro_assets.platform.places import check_outside_home

            check_outside_home(path, whole=whole, models=models)
        return path

    return option("--out", "-o", required=required, type=PATH, help=meaning, callback=outside)


def topic(name: str, *options: Decorator) -> Topic:
    """The options, to be shown under this name."""

    def named(add: Decorator) -> Decorator:
        def decorated(function: Any) -> Any:
            function = add(function)
            function.__click_params__[-1].topic = name  # where click keeps them until the command is made
            return function

        return decorated

    return tuple(map(named, options))


def with_options(*topics: Topic) -> Callable[[Command], Command]:
    """Give a command the options of these topics, in this order."""

    def decorated(function: Command) -> Command:
        for add in reversed([add for options in topics for add in options]):
            function = add(function)
        return function

    return decorated
