"""One lane as a process of its own: `python -m virnucpro_assets.running.lane SAMPLE RANK`; started by the driver.

Prints nothing but, if the lane fails, one line that says why. Ends with its driver, which holds the other end
of its standard input: a lane without a driver would hold a GPU that nobody waits for.
"""

import signal
import sys

from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_core.interrupts import keep_interrupts


def main(sample: str, rank: int) -> int:
    """Exit code: 0 done, 2 wrong input or weights, 3 failed and resumable, 130 ended by its driver."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # see cli.main
    keep_interrupts()
    # Not at the top: a loader worker imports this module again, and needs neither Dagster nor the graph.
    with lasting_imports():
        from virnucpro_assets.platform.presence import end_with_input

        end_with_input()
        from virnucpro_assets.graph.partitions import lane_key
        from virnucpro_assets.running.runs import last_word, run_job

    return last_word(lambda: run_job("lane", lane_key(sample, rank), sample))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
