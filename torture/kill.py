"""Kill campaign: one process of a prediction at a random moment, again and again, until it is finished.

The same command resumes each time, at once, beside whatever the killed tree left. In the end every byte must
be that of an undisturbed run, no finished shard may have been computed again, and nothing may be left.
"""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from torture.site import END_SECONDS, Site, Started, role
from torture.table import Row, Task, campaign

POLL_SECONDS = 0.01
START_TIMEOUT = 300.0
SOFT_PART, NOTHING_PART = 0.15, 0.2
EXIT_CODES = {0, 3, 130, -signal.SIGKILL}


@dataclass
class Killing:
    """The state of one campaign: what it draws from, what it compares with, what it found."""

    site: Site
    draw: random.Random
    deadline: float
    most: int
    killed: Row = field(default_factory=lambda: Row("processes killed (SIGKILL)"))
    asked: Row = field(default_factory=lambda: Row("driver stopped (SIGTERM, SIGINT)"))
    reference: dict[str, str] = field(default_factory=dict)
    typical: float = 10.0
    struck: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    unpublished: float = 0.0

    @property
    def points(self) -> int:
        return self.killed.points + self.asked.points

    @property
    def over(self) -> bool:
        return time.monotonic() > self.deadline or self.points >= self.most


@campaign("kill", share=6)
def kill(task: Task) -> Sequence[Row]:
    """SIGKILL, SIGTERM and SIGINT to driver, lanes and loader workers."""
    return kill_points(task, most=10**9)


def kill_points(task: Task, *, most: int) -> Sequence[Row]:
    """The campaign with at most `most` points. The prediction that is under way is always finished and compared."""
    began = time.monotonic()
    undisturbed = Site(task.folder / "undisturbed")
    undisturbed.begin()
    first = undisturbed.start()
    assert first.process.wait(START_TIMEOUT) == 0, first.errors()
    typical = time.monotonic() - first.since
    state = Killing(Site(task.folder / "killed"), random.Random(task.seed), began + task.seconds, most)
    state.reference, state.typical = undisturbed.content(), typical
    while not state.over:
        instance = None if state.draw.random() < NOTHING_PART else undisturbed.home / "dagster"
        _one_prediction(state, instance)
    roles = ", ".join(f"{count} {name}" for name, count in sorted(state.struck.items()))
    state.killed.note = (
        f"{roles}; {state.finished} predictions of {len(state.reference)} files; "
        f"at most {state.unpublished:.1f} computed shards a lane not yet reported as on disk"
    )
    for row in (state.killed, state.asked):
        row.seconds = time.monotonic() - began
    return (state.killed, state.asked)


def _one_prediction(state: Killing, instance: Path | None) -> None:
    """From nothing (or an instance) to the end, struck and resumed on the way, then compared."""
    site = state.site
    site.begin(instance)
    kept: dict[Path, tuple[int, int]] = {}
    for number in range(1000):
        before, since = site.processes(), time.monotonic()
        run = site.start(number=number)
        sent = _strike_until_it_ends(state, run)
        _judge(state, run, sent)
        _, orphans = psutil.wait_procs(before, timeout=max(0.0, since + END_SECONDS - time.monotonic()))
        for orphan in orphans:
            state.killed.wrong += 1
            state.killed.findings.append(f"{role(orphan)} outlived its parent: {orphan}")
        now = site.finished_shards()
        redone = [path for path, status in kept.items() if now.get(path) != status]
        state.killed.lost += len(redone)
        state.killed.findings += [f"finished shard redone: {path}" for path in redone]
        kept = now
        if run.process.returncode == 0:
            break
    found = site.content()
    different = [n for n in state.reference.keys() | found.keys() if state.reference.get(n) != found.get(n)]
    problems = [f"{name} differs from the undisturbed run's" for name in different] + site.left()
    state.killed.wrong += len(problems)
    state.killed.findings += problems
    state.finished += 1


def _strike_until_it_ends(state: Killing, run: Started) -> list[int]:
    """Signals sent to the run's driver or another process of the site, while it runs."""
    sent: list[int] = []
    while run.process.poll() is None:
        if state.over or not _wait_for_moment(state, run):
            run.process.wait(START_TIMEOUT)
            break
        if state.draw.random() < SOFT_PART and not sent:
            chosen = state.draw.choice([signal.SIGTERM, signal.SIGINT])
            run.process.send_signal(chosen)
            state.asked.points += 1
            sent.append(chosen)
            continue
        living = {p: role(p) for p in state.site.processes()}
        roles = sorted({r for r in living.values() if r not in ("gone", "other")})
        if not roles:
            continue
        wanted = state.draw.choice(roles)
        victim = state.draw.choice(sorted((p for p, r in living.items() if r == wanted), key=lambda p: p.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
            state.killed.points += 1
            state.struck[wanted] += 1
            sent.append(signal.SIGKILL)
    if signal.SIGKILL in sent and run.process.returncode:
        state.unpublished = max(state.unpublished, state.site.unpublished())
    return sent


def _wait_for_moment(state: Killing, run: Started) -> bool:
    """Half of the moments are drawn from the time a run takes, half follow a shard's arrival; False: it ended."""
    by_shards = state.draw.random() < 0.5
    wait = state.draw.uniform(0.0, state.typical)
    more, late = state.draw.randint(1, 8), state.draw.uniform(0.0, 0.05)
    begun = len(state.site.finished_shards())
    until = time.monotonic() + (START_TIMEOUT if by_shards else wait)
    while time.monotonic() < until:
        if run.process.poll() is not None:
            return False
        if by_shards and len(state.site.finished_shards()) >= begun + more:
            time.sleep(late)
            break
        time.sleep(POLL_SECONDS)
    return run.process.poll() is None


def _judge(state: Killing, run: Started, sent: list[int]) -> None:
    """Exit code and standard error of a run that has ended."""
    row = state.killed if signal.SIGKILL in sent else state.asked
    code, errors = run.process.returncode, run.errors()
    shown = any("Traceback" in line for line in errors)
    row.tracebacks += shown
    expected = EXIT_CODES if signal.SIGKILL in sent else {0, 130} if sent else {0}
    said = [line for line in errors if line.startswith("virnucpro: ")]
    lines = 1 if code in (3, 130) else 0
    if code not in expected or len(said) != lines or (len(errors) != lines and not shown):
        row.wrong += 1
        row.findings.append(f"signals {sent}: exit {code}, {errors[:3]}")
    elif shown:
        row.findings.append(f"signals {sent}: traceback, {errors[-1]}")
