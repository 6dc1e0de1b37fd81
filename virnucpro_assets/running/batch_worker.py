"""One batch as a process of its own: `python -m virnucpro_assets.running.batch_worker RANK TURNS SAMPLE ...`.

Started by the driver. Prints `done SAMPLE` or `failed SAMPLE: why` as each sample ends, and a last line if the batch
itself fails. Ends with its driver, as a lane does.
"""

import logging
import signal
import sys
from collections.abc import Sequence

from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_core.interrupts import keep_interrupts


def main(rank: int, turns: str, samples: Sequence[str]) -> int:
    """Exit code: 0 every sample has ended, well or not; else that of what ended the batch; 130 ended by its driver."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # see cli.main
    keep_interrupts()
    with lasting_imports():
        from virnucpro_assets.platform.presence import end_with_input

        end_with_input()
        from virnucpro_assets.running.runs import last_word, run_batch

    said = logging.getLogger("virnucpro_assets.graph.batch")
    said.addHandler(logging.StreamHandler(sys.stdout))
    said.setLevel(logging.INFO)
    said.propagate = False
    return last_word(lambda: run_batch(samples, rank, turns))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
