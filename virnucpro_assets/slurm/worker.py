"""The process of a step inside a Slurm job: Dagster's own `execute_step`, but SIGTERM ends it at once, as a kill does.

Slurm sends SIGTERM before it preempts, requeues, times out or cancels a job. Dagster would record it as the step's
failure, or as a retry, although Slurm may already have queued the job again. So the process says nothing: finished
shards are on disk, locks end with the process, and the run's process asks Slurm what became of the job.
"""

import signal
import sys


def main() -> None:
    """Execute the step that the variable DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS describes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from dagster._utils import interrupts

    # Dagster calls this whenever it takes SIGINT for itself; it would take SIGTERM too.
    interrupts.setup_interrupt_handlers = lambda: None
    from dagster._cli import main as dagster

    sys.argv = ["dagster", "api", "execute_step"]
    dagster()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
