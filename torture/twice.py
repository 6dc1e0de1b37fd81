"""Run two commands at once: on the same sample, on the same lane, a discard in a prediction, a resume with orphans.

Only one process works on a lane. The other one waits, or says in one line who holds the lock. All results must be the
same as those of a single run.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from torture.site import LANES, ROOT, SAMPLE, Site, Started, role, undisturbed
from torture.table import Row, Task, campaign
from virnucpro_assets.running import tasks

TIMEOUT = 300.0
POLL_SECONDS = 0.02


@campaign("twice", share=1)
def twice(task: Task) -> Sequence[Row]:
    """Try all pairs again and again until the time is used up."""
    return twice_points(task, most=10**9)


def twice_points(task: Task, *, most: int) -> Sequence[Row]:
    """Run the campaign with at most `most` points; each pair at least once if `most` allows it."""
    began, draw = time.monotonic(), random.Random(task.seed)
    alone = undisturbed(task.folder / "undisturbed")
    reference, row = alone.content(), Row("two at once")
    pairs = (_same_sample, _same_lane, _discard, _beside_orphans)
    while row.points < most and (row.points < len(pairs) or time.monotonic() < began + task.seconds):
        site, pair = Site(task.folder / "pair"), pairs[row.points % len(pairs)]
        site.begin(alone.home / "dagster")
        row.points += 1
        problems = pair(site, draw)
        found = site.content()
        problems += [
            f"{n} differs" for n in reference.keys() | found.keys() if reference.get(n) != found.get(n)
        ]
        problems += site.left()
        row.wrong += len(problems)
        row.findings += [f"{pair.__name__.strip('_')}: {problem}" for problem in problems]
        row.tracebacks += sum("Traceback" in said.read_text() for said in site.folder.glob("said-*.err"))
    row.seconds = time.monotonic() - began
    row.note = ", ".join(p.__name__.strip("_").replace("_", " ") for p in pairs[: row.points])
    return (row,)


def _same_sample(site: Site, draw: random.Random) -> list[str]:
    """Start both. The second one must say who holds the sample, and must get the same results when run again."""
    one = site.start(number=1)
    time.sleep(draw.uniform(0.0, 3.0))
    other = site.start(number=2)
    codes = sorted(run.process.wait(TIMEOUT) for run in (one, other))
    problems = [] if codes == [0, 3] else [f"exit codes {codes}"]
    loser = one if one.process.returncode else other
    return problems + _says(loser, "is being predicted by another process (process ")


def _same_lane(site: Site, draw: random.Random) -> list[str]:
    """A second run of a lane waits for the first, then finds everything done."""
    run = site.start(number=1)
    _wait(lambda: len(site.finished_shards()) > draw.randint(0, 6), run)
    lane = subprocess.Popen(
        [sys.executable, "-m", "virnucpro_assets.running.worker", "gpu-0"],
        env=site.platform.environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert lane.stdin is not None
    lane.stdin.write(
        tasks.Task("lane", (f"{draw.randrange(LANES)}|{SAMPLE}",), "predict-another").line().encode()
    )
    lane.stdin.flush()
    code, before = run.process.wait(TIMEOUT), site.finished_shards()
    said, _ = lane.communicate(timeout=TIMEOUT)  # this also closes its standard input, which may end it
    problems = [] if code == 0 else [f"the driver's exit code is {code}, {run.errors()}"]
    if lane.returncode not in (0, 130, -signal.SIGTERM):
        problems.append(f"the second lane's exit code is {lane.returncode}, {said!r}")
    if site.finished_shards() != before:
        problems.append("shards were computed twice")
    return problems


def _discard(site: Site, draw: random.Random) -> list[str]:
    """`--fresh` is refused while another process works on the sample, and harms nothing."""
    run = site.start(number=1)
    _wait(lambda: len(site.finished_shards()) > draw.randint(0, 6), run)
    other = site.start(number=2, options=("--fresh",))
    codes = (run.process.wait(TIMEOUT), other.process.wait(TIMEOUT))
    if codes == (0, 0):  # the first had finished before the second reached the sample
        return []
    return ([] if codes == (0, 3) else [f"exit codes {codes}"]) + _says(
        other, "a process works on it (process "
    )


def _beside_orphans(site: Site, draw: random.Random) -> list[str]:
    """Kill only the driver: its lanes are still running when the same command starts again."""
    run = site.start(number=1)
    _wait(lambda: len(site.finished_shards()) > draw.randint(0, 6), run)
    run.process.kill()
    run.process.wait()
    orphans = [p for p in site.platform.processes() if role(p) == "lane"]
    kept, again = site.finished_shards(), site.start(number=2)
    code, now = again.process.wait(TIMEOUT), site.finished_shards()
    problems = [] if code == 0 and not again.errors() else [f"exit code {code}, {again.errors()}"]
    problems += [f"{path} was redone" for path, status in kept.items() if now.get(path) != status]
    return problems + [f"orphan {p.pid} is still running" for p in orphans if p.is_running()]


def _says(run: Started, words: str) -> list[str]:
    errors = run.errors()
    return [] if len(errors) == 1 and words in errors[0] else [f"it says {errors}"]


def _wait(condition: Callable[[], bool], run: Started) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition() and run.process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
