"""What the HTML pages share: templates, number formats, and a policy that lets nothing be loaded from outside."""

import base64
import functools
import hashlib
from importlib import resources

import jinja2


@functools.cache
def page_environment() -> jinja2.Environment:
    """Templates of this package; every value is escaped. Filters: `thousands`, `bases`.

    A process has one, and so compiles a template only once.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("virnucpro_core.results"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": "{:,}".format, "bases": _bases}
    return environment


def page_policy(style: str, script: str = "") -> str:
    """The content security policy of a page that has exactly this style and, unless "", this script."""
    scripts = f"script-src '{_source(script)}'; " if script else ""
    return f"default-src 'none'; style-src '{_source(style)}'; {scripts}base-uri 'none'; form-action 'none'"


def template_text(name: str) -> str:
    """The text of a file of the folder `templates`."""
    return resources.files("virnucpro_core.results").joinpath("templates", name).read_text("utf-8")


def _source(text: str) -> str:
    """The hash source of an inline script or style for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bases(number: int) -> str:
    for unit, size in (("Gb", 1e9), ("Mb", 1e6), ("kb", 1e3)):
        if number >= size:
            return f"{number / size:.1f}\u00a0{unit}"
    return f"{number}\u00a0bases"
