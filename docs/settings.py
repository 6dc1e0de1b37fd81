"""Writes the table of all settings in operations.md from the options and the variables: it cannot show what is not so.

`make settings` runs it.
"""

import sys
from pathlib import Path

from virnucpro_assets.cli.known_settings import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- settings: written by docs/settings.py -->\n", "<!-- end of settings -->"


def page(text: str) -> str:
    """The page with the present table in it."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} lacks the marks {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: the table of settings\n")
