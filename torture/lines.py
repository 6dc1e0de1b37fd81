"""What counts as one clear line for a person."""

from virnucpro_core.errors import VirnucproError


def is_one_line(error: BaseException, given: bytes = b"") -> bool:
    """Whether a person sees one line with a place: our own error, and no traceback inside it, not even one that was
    escaped. `given`: the input, whose own backslashes may be quoted.
    """
    text = str(error)
    escaped = "\\n" in text and b"\\n" not in given
    plain = "\n" not in text and "Traceback" not in text and not escaped
    return isinstance(error, VirnucproError) and bool(error.where) and plain
