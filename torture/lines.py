"""Decide whether an error is one clear line for the user."""

from virnucpro_core.errors import VirnucproError


def is_one_line(error: BaseException, given: bytes = b"") -> bool:
    """Whether the error is one of ours, shown as one line with a place, without a traceback inside it (also not an
    escaped one). `given`: the input, whose own backslashes may be quoted.
    """
    text = str(error)
    escaped = "\\n" in text and b"\\n" not in given
    plain = "\n" not in text and "Traceback" not in text and not escaped
    return isinstance(error, VirnucproError) and bool(error.where) and plain
