"""Time zones: whether a name is one, and which is this machine's."""

import zoneinfo
from pathlib import Path

LOCAL_TIME, ZONES = Path("/etc/localtime"), "zoneinfo/"


def is_zone(name: str) -> bool:
    """Whether it is the name of an IANA time zone."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # unknown, a path, or a folder of zones
        return False
    return True


def own_zone(variable: str) -> str:
    """The name of this machine's time zone. variable: the value of `TZ`, which comes first. "UTC" if none is known."""
    linked = str(LOCAL_TIME.resolve()).partition(ZONES)[2]
    return next((zone for zone in (variable.removeprefix(":"), linked) if zone and is_zone(zone)), "UTC")
