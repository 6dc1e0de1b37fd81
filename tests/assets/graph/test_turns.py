"""A list that several work off: every item once, whoever is slow; what a process had to leave is its rank's again."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_assets.graph.turns import open_turns, turns
from virnucpro_core.errors import StoreError


@given(items=st.integers(0, 60), ranks=st.integers(1, 8), seed=st.integers(0, 999))
def test_every_item_falls_to_one_rank(
    tmp_path_factory: pytest.TempPathFactory, items: int, ranks: int, seed: int
) -> None:
    folder, draw = tmp_path_factory.mktemp("turns"), random.Random(seed)
    with open_turns(folder, items) as path:
        asked = [
            turns(path, range(items), rank, ranks, idle=lambda: draw.random() < 0.5) for rank in range(ranks)
        ]
        taken = []
        while asked:
            who = draw.randrange(len(asked))
            item = next(asked[who], "end")
            if item == "end":
                del asked[who]
            elif item is not None:
                taken.append(item)
    assert sorted(taken) == list(range(items))
    assert not list(folder.iterdir())


def work(path: Path, rank: int, seconds: float) -> int:
    asked = turns(path, range(100), rank, 2, idle=lambda: True)
    return sum(1 for _ in asked if not time.sleep(seconds))


def test_a_slow_one_holds_nobody_up(tmp_path: Path) -> None:
    with open_turns(tmp_path, 100) as path, ThreadPoolExecutor(2) as threads:
        slow, fast = threads.map(work, (path, path), (0, 1), (0.05, 0.005))
    assert slow + fast == 100
    assert fast > 2 * slow


def test_a_share_is_its_rank_s_until_another_is_idle(tmp_path: Path) -> None:
    idle = False
    with open_turns(tmp_path, 6) as path:
        early = turns(path, "abcdef", 0, 2, idle=lambda: idle)
        assert [next(early) for _ in range(5)] == ["a", "c", "e", None, None]
        idle = True
        assert next(early) == "f"
        late = turns(path, "abcdef", 1, 2, idle=lambda: False)
        assert list(late) == ["b", "d"]
        assert list(early) == []


def test_what_a_process_left_falls_to_the_next_of_its_rank(tmp_path: Path) -> None:
    items = ["a", "b", "c", "d"]
    with open_turns(tmp_path, 4) as path:
        first, other = (turns(path, items, rank, 2, idle=lambda: True) for rank in (0, 1))
        assert [next(first), next(other), next(first)] == ["a", "b", "c"]
        first.close()
        assert list(turns(path, items, 0, 2, idle=lambda: True)) == ["a", "c", "d"]
        assert list(other) == []


def test_a_list_whose_file_is_gone_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        next(turns(tmp_path / "gone", ["a"], 0, 1, idle=lambda: True))
