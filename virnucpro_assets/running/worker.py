"""A worker process of `virnucpro predict`: `python -m virnucpro_assets.running.worker NAME`.

The worker reads tasks from standard input, one after another, and prints the outcome of each (see tasks.py). It keeps
its GPU and its models from the first task to the last, so that nothing starts twice. The driver holds the other end of
standard input, so the worker ends when the driver ends. Otherwise it would keep a GPU without need.
"""

import gc
import queue
import signal
import sys
from contextlib import nullcontext

from virnucpro_assets.platform.environment import usable_cores
from virnucpro_assets.platform.startup import lasting_imports
from virnucpro_assets.running.tasks import AHEAD, END, HOST, PREPARE, Outcome, Task
from virnucpro_core.interrupts import keep_interrupts
from virnucpro_core.sequences.parallel import start_process_server

# From so many on, several processes translate a large sample and write its results (pipeline/steps.py).
CORES = 4


def main() -> int:
    """Work until the end. Exit code 130: the driver ended it. 4: its device was lost; a new process can go on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # see cli.main
    keep_interrupts()
    # One thread computes while another records. Each torch operation gives up Python's lock and wants it back: by
    # default it would wait for up to 5 ms.
    sys.setswitchinterval(0.0005)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    if sys.argv[1] == HOST and usable_cores() >= CORES:  # they import while this process does
        start_process_server("virnucpro_core.results.folder")
    # Not at the top of the file: a loader process imports this module too, and needs neither Dagster nor the graph.
    with lasting_imports():
        from virnucpro_assets.platform.presence import end_with_input
        from virnucpro_assets.platform.resource import kept_device
        from virnucpro_assets.running.runs import embed_ahead, embedding_ahead, prepare, run_task
        from virnucpro_core.encoders.loaded import kept_encoders
        from virnucpro_core.errors import DeviceLostError, VirnucproError
        from virnucpro_core.pipeline.ahead import computing_ahead
        from virnucpro_core.pipeline.at_hand import scores_at_hand

    # What was imported stays: the garbage collector need not look at it again, which takes half a second each time.
    gc.freeze()
    with kept_device(), kept_encoders(), scores_at_hand(), computing_ahead() as ahead:

        def receive(line: bytes) -> None:
            task = Task.read(line)
            if task.job == AHEAD:
                embed_ahead(ahead, task)
            else:
                tasks.put(task)

        end_with_input(receive)
        while True:
            try:
                task = tasks.get()
                if task.job == END:
                    return 130
                if task.job == PREPARE:
                    prepare(task)
                    continue
                with embedding_ahead(ahead, task) if task.is_shared else nullcontext():
                    outcome = run_task(task)
            except KeyboardInterrupt:
                return 130
            except VirnucproError as error:
                outcome = Outcome(str(error), error.exit_code)
            if outcome.exit_code == DeviceLostError.exit_code:
                print(outcome.failure, flush=True)
                return outcome.exit_code
            print(outcome.line(), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
