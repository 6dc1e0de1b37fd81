"""One lane as a process of its own: `python -m virnucpro_assets.lane SAMPLE RANK`; started by the driver.

Prints nothing but, if the lane fails, one line that says why. Ends with its parent: a lane without a driver
would hold a GPU that nobody waits for.
"""

import os
import sys
import threading
import time

from virnucpro_assets.runs import Outcome, run_job
from virnucpro_core.errors import VirnucproError

PARENT_POLL_SECONDS = 1.0


def main(sample: str, rank: int) -> int:
    """Exit code: 0 done, 2 wrong input or weights, 3 failed and resumable."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    from virnucpro_assets.partitions import lane_key

    try:
        outcome: Outcome = run_job("lane", lane_key(sample, rank))
    except VirnucproError as error:
        outcome = Outcome("", str(error), error.exit_code)
    if outcome.failure:
        sys.stdout.write(outcome.failure + "\n")
    return outcome.exit_code


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os.kill(os.getpid(), 9)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
