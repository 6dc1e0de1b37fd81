"""Runs that are stopped at each moment of each product, also where the interrupt is swallowed there.

`make test` strikes at a few of the moments, `pytest -m long` at all of them: half an hour.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from torture.moments import HOW, MOMENTS, Moment, Terminator, stop_predict, terminator
from torture.site import Site, undisturbed

FEW = [("dnabert_embeddings: freeing", "ignored"), ("esm_embeddings: loading", "an error")]
FEW_PREDICTIONS = [("dnabert_embeddings: a shard is recorded", "caught", signal.SIGTERM)]
ALL_PREDICTIONS = [
    (moment, how, number)
    for moment in MOMENTS
    for how, number in (("ignored", signal.SIGINT), ("an error", signal.SIGTERM))
    if not MOMENTS[moment].starts
]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminator]:
    with terminator(tmp_path_factory.mktemp("terminated")) as found:
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return undisturbed(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def called(runs: Terminator) -> Terminator:
    """The same, with everything in place that the results are made of."""
    assert runs.finish("sequences") + runs.finish("lane") == []
    return runs


@pytest.mark.parametrize(("moment", "how"), FEW)
def test_a_run_that_is_terminated_says_canceled_at_once(runs: Terminator, moment: str, how: str) -> None:
    assert runs.strike(MOMENTS[moment], how).problems == []


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_is_terminated_at_any_moment_says_canceled_and_goes_on_when_launched_again(
    request: pytest.FixtureRequest, moment: Moment
) -> None:
    runs: Terminator = request.getfixturevalue("called" if moment.job == "results" else "runs")
    struck = {how: runs.strike(moment, how).problems for how in HOW}
    assert struck == {how: [] for how in HOW}
    assert runs.finish(moment.job) == []


@pytest.mark.parametrize(
    ("moment", "how", "number"),
    [*FEW_PREDICTIONS, *(pytest.param(*one, marks=pytest.mark.long) for one in ALL_PREDICTIONS)],
)
def test_a_stopped_prediction_says_so_at_once_and_the_same_command_ends_with_the_same_bytes(
    alone: Site, tmp_path: Path, moment: str, how: str, number: signal.Signals
) -> None:
    assert stop_predict(tmp_path / "stopped", MOMENTS[moment], how, number, alone).problems == []
