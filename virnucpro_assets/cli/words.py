"""Numbers with their nouns, for messages: `1 record`, `2 records`. Imports nothing, so that commands stay fast."""


def counted(number: int, noun: str) -> str:
    """The number with thousands separators and the noun, with an `s` unless the number is 1: `1,200 records`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
