"""What counts as one clear line for a person."""

from virnucpro_core.errors import VirnucproError


def is_one_line(error: BaseException) -> bool:
    """Whether a person sees one line with a place: our own error, and no traceback inside it."""
    text = str(error)
    plain = "\n" not in text and "Traceback" not in text and "\\n" not in text
    return isinstance(error, VirnucproError) and bool(error.where) and plain
