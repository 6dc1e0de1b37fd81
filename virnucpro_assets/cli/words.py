"""Numbers with their nouns, for messages: `1 record`, `2 records`. Imports nothing, so that commands stay fast."""


def counted(number: int, noun: str) -> str:
    """The number with thousands separators and the noun, with an `s` unless the number is 1: `1,200 records`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_time(seconds: float) -> str:
    """A duration: `12 s`, `3 m 05 s`, `2 h 09 m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s" if minutes else f"{rest} s"
