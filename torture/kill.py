"""Kill processes of a prediction at random moments, again and again, until the prediction is finished.

After each kill the same command resumes at once, while processes of the killed run may still be there. In the end every
byte must be the same as after an undisturbed run, no finished shard may have been computed again, and no process, lock
or temporary file may be left.
"""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from torture.site import END_SECONDS, Site, Started, role, undisturbed
from torture.table import Row, Task, campaign

POLL_SECONDS = 0.02
START_TIMEOUT = 300.0
SOFT_PART, NOTHING_PART = 0.15, 0.05
MOMENTS = {"time": 3, "files": 4, "embedding": 3}
MOST_FILES, LATE_SECONDS, EMBEDDING_FACTOR, SOON_SECONDS = 12, 0.05, 20, 0.7
WEIGHTS = {"driver": 1, "lane": 4, "host": 1, "loader worker": 3, "worker server": 1, "tracker": 1}
EXIT_CODES = {0, 3, 130, -signal.SIGKILL}


@dataclass
class Killing:
    """The state of one campaign: random generator, reference results, findings."""

    site: Site
    draw: random.Random
    deadline: float
    most: int
    killed: Row = field(default_factory=lambda: Row("processes killed (SIGKILL)"))
    asked: Row = field(default_factory=lambda: Row("driver stopped (SIGTERM, SIGINT)"))
    reference: dict[str, str] = field(default_factory=dict)
    start_seconds: float = 10.0
    struck: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    finished: int = 0
    unpublished: float = 0.0

    @property
    def points(self) -> int:
        return self.killed.points + self.asked.points

    @property
    def over(self) -> bool:
        return time.monotonic() > self.deadline or self.points >= self.most


@campaign("kill", share=7)
def kill(task: Task) -> Sequence[Row]:
    """SIGKILL, SIGTERM and SIGINT to driver, lanes and loader workers."""
    return kill_points(task, most=10**9)


def kill_points(task: Task, *, most: int) -> Sequence[Row]:
    """Run the campaign with at most `most` points. The last prediction is always finished and compared."""
    began = time.monotonic()
    alone = undisturbed(task.folder / "undisturbed")
    state = Killing(Site(task.folder / "killed"), random.Random(task.seed), began + task.seconds, most)
    state.reference, state.start_seconds = alone.content(), alone.start_seconds()
    while not state.over:
        instance = None if state.draw.random() < NOTHING_PART else alone.home / "dagster"
        _one_prediction(state, instance)
    roles = ", ".join(f"{count} {name}" for name, count in sorted(state.struck.items()))
    state.killed.note = (
        f"{roles}; {state.commands} commands made {state.finished} predictions of {len(state.reference)} files; "
        f"at most {state.unpublished:g} of a lane's shards computed again after it was killed"
    )
    for row in (state.killed, state.asked):
        row.seconds = time.monotonic() - began
    return (state.killed, state.asked)


def _one_prediction(state: Killing, instance: Path | None) -> None:
    """Run one prediction from an empty home (or a copied instance), kill and resume it until it ends, then compare."""
    site = state.site
    site.begin(instance)
    kept: dict[Path, tuple[int, int]] = {}
    for number in range(1000):
        before, since = site.platform.processes(), time.monotonic()
        run = site.start(number=number)
        state.commands += 1
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
    """Send signals to the driver or kill a process of the run until it ends. Returns the signals that were sent."""
    sent: list[int] = []
    while run.process.poll() is None:
        if state.over or not _wait_for_moment(state, run, again=bool(sent)):
            run.process.wait(START_TIMEOUT)
            break
        if state.draw.random() < SOFT_PART and not sent:
            chosen = state.draw.choice([signal.SIGTERM, signal.SIGINT])
            run.process.send_signal(chosen)
            state.asked.points += 1
            sent.append(chosen)
            continue
        living = {p: role(p) for p in state.site.platform.processes()}
        roles = sorted(WEIGHTS.keys() & set(living.values()))
        if not roles:
            continue
        [wanted] = state.draw.choices(roles, [WEIGHTS[r] for r in roles])
        victim = state.draw.choice(sorted((p for p, r in living.items() if r == wanted), key=lambda p: p.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            _kill(state, victim, wanted)
            sent.append(signal.SIGKILL)
    return sent


def _kill(state: Killing, victim: psutil.Process, wanted: str) -> None:
    """Send SIGKILL. For a lane, also record how much computed work was not on disk yet: at most one shard may be."""
    rank = int(victim.cmdline()[-1].removeprefix("gpu-")) if wanted == "lane" else None
    victim.send_signal(signal.SIGKILL)
    state.killed.points += 1
    state.struck[wanted] += 1
    if rank is not None:
        psutil.wait_procs([victim], timeout=END_SECONDS)
        unpublished = state.site.unpublished(rank)
        state.unpublished = max(state.unpublished, unpublished)
        if unpublished > 1:
            state.killed.lost += 1
            state.killed.findings.append(
                f"lane {rank} had computed {unpublished:g} shards and not published them"
            )


def _wait_for_moment(state: Killing, run: Started, *, again: bool) -> bool:
    """Wait until the next moment to kill. Returns False if the run ended before.

    The first moment of a run is a random part of the time that a start takes, or comes after some files or the loader
    workers have appeared. Processes that survived the first kill are killed soon after it.
    """
    draw, begun = state.draw, state.site.files()
    early = draw.expovariate(1 / SOON_SECONDS) if again else draw.uniform(0.0, state.start_seconds)
    more, late = draw.randint(1, MOST_FILES), draw.uniform(0.0, LATE_SECONDS)
    kind = "time" if again else draw.choices(list(MOMENTS), list(MOMENTS.values()))[0]
    conditions: dict[str, Callable[[], bool]] = {
        "time": lambda: time.monotonic() > struck_at,
        "files": lambda: state.site.files() >= begun + more,
        "embedding": lambda: state.site.embeds_since(run.began),
    }
    struck_at = time.monotonic() + early
    while run.process.poll() is None and not conditions[kind]():
        time.sleep(POLL_SECONDS)
    time.sleep(late * (EMBEDDING_FACTOR if kind == "embedding" else 1))
    return run.process.poll() is None


def _judge(state: Killing, run: Started, sent: list[int]) -> None:
    """Check the exit code and standard error of a run that has ended."""
    row = state.killed if signal.SIGKILL in sent else state.asked
    code, errors = run.process.returncode, run.errors()
    shown = any("Traceback" in line for line in errors)
    row.tracebacks += shown
    expected = EXIT_CODES if signal.SIGKILL in sent else {0, 130} if sent else {0}
    said = [line for line in errors if line.startswith("virnucpro: ")]
    lines = (
        (1,) if code in (3, 130) else (0, 1) if code == -signal.SIGKILL else (0,)
    )  # 1: killed while it ended
    if code not in expected or len(said) not in lines or (len(errors) not in lines and not shown):
        row.wrong += 1
        row.findings.append(f"signals {sent}: exit {code}, {errors[:3]}")
    elif shown:
        row.findings.append(f"signals {sent}: traceback, {errors[-1]}")
