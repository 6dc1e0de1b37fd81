"""Column stores: what is written comes back, and no damage goes unseen."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support import DATA
from virnucpro_core.errors import StoreError
from virnucpro_core.files.columns import HEADER, ColumnStore, ColumnWriter, Strings, spans

DTYPES = st.sampled_from([np.uint8, np.int32, np.int64, np.float32, np.dtype(">i4")])


def write(path: Path, seed: int = 0) -> ColumnStore:
    rng = np.random.default_rng(seed)
    with ColumnWriter.publishing(path, kind="test") as writer:
        writer.append("numbers", rng.integers(0, 99, 40))
        writer.append("rows", rng.integers(0, 255, (5, 16), np.uint8))
        writer.append_strings("words", [b"one", b"", b"three"])
        writer.append("nothing", np.empty(0, np.int64))
        writer.attrs["size"] = 500
    return ColumnStore.open(path, kind="test")


@settings(max_examples=40)
@given(st.lists(hnp.arrays(np.int64, st.integers(0, 7)), min_size=1, max_size=4), DTYPES)
def test_appended_blocks_come_back_as_one_column(blocks: list[np.ndarray], dtype: np.dtype) -> None:
    blocks = [(block % 100).astype(dtype) for block in blocks]
    with tempfile.TemporaryDirectory() as folder:
        with ColumnWriter.publishing(Path(folder) / "store", kind="test") as writer:
            for block in blocks:
                writer.append("column", block)
        store = ColumnStore.open(Path(folder) / "store", kind="test")
        store.verify()
        assert store["column"].dtype == np.dtype(dtype).newbyteorder("<")
        np.testing.assert_array_equal(store["column"], np.concatenate(blocks))


@settings(max_examples=40)
@given(st.lists(st.lists(st.binary(max_size=9), max_size=5), min_size=1, max_size=4), st.data())
def test_strings_come_back(batches: list[list[bytes]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with ColumnWriter.publishing(Path(folder) / "store", kind="test") as writer:
            for batch in batches:
                writer.append_strings("words", batch)
        words = ColumnStore.open(Path(folder) / "store", kind="test").strings("words")
        expected = [word for batch in batches for word in batch]
        assert list(words) == words[:] == expected
        assert words.lengths.tolist() == [len(word) for word in expected]
        part = data.draw(st.slices(len(expected)))
        assert words[part] == expected[part]
        if expected:
            rows = data.draw(st.lists(st.integers(0, len(expected) - 1)))
            assert words.take(np.array(rows, np.int64)) == [expected[row] for row in rows]
            assert words[-1] == expected[-1]
        with pytest.raises(IndexError):
            words[len(expected)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9))))
def test_spans_are_ranges_end_to_end(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(pairs, np.int64).reshape(-1, 2).T
    assert spans(starts, lengths).tolist() == [i for s, n in pairs for i in range(s, s + n)]


def test_attrs_digest_and_empty_columns(tmp_path: Path) -> None:
    one, two, other = (write(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 0), ("other", 1)))
    assert one.attrs == {"size": 500}
    assert one.digest == two.digest != other.digest
    assert one["nothing"].shape == (0,)
    assert one["rows"].shape == (5, 16)
    assert "words" in one
    assert "verbs" not in one
    with pytest.raises(ValueError, match="read-only"):
        one["numbers"][0] = 1


def test_any_damaged_byte_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    store.verify()
    for file in (tmp_path / "store").glob("*.bin"):
        sound = file.read_bytes()
        for at in range(len(sound)):
            file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            with pytest.raises(StoreError, match=f"column {file.stem} is damaged"):
                store.verify()
        file.write_bytes(sound)
    store.verify()


def test_any_damaged_byte_of_the_header_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    header = store.path / HEADER
    sound = header.read_bytes()
    for at in range(len(sound)):
        header.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        try:
            again = ColumnStore.open(store.path, kind="test")
        except StoreError:
            continue
        assert again.digest == store.digest, sound[at : at + 1]


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_column_of_another_size_is_not_opened(tmp_path: Path, change: bytes) -> None:
    file = write(tmp_path / "store").path / "numbers.bin"
    file.write_bytes(change and file.read_bytes() + change)
    with pytest.raises(StoreError, match="column numbers is damaged"):
        ColumnStore.open(tmp_path / "store", kind="test")


def test_a_missing_column_another_kind_and_no_store(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    with pytest.raises(StoreError, match="holds test of version 1, not chunks"):
        ColumnStore.open(store.path, kind="chunks")
    (store.path / "numbers.bin").unlink()
    with pytest.raises(StoreError, match="column numbers: No such file"):
        ColumnStore.open(store.path, kind="test")
    with pytest.raises(StoreError, match="no readable"):
        ColumnStore.open(tmp_path / "nowhere", kind="test")


def test_a_column_name_never_leaves_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="column name"),
        ColumnWriter.publishing(tmp_path / "store", kind="test") as writer,
    ):
        writer.append("../outside", np.zeros(1))
    assert not (tmp_path / "store").exists()


def test_rows_of_another_type_are_refused(tmp_path: Path) -> None:
    with ColumnWriter.publishing(tmp_path / "store", kind="test") as writer:
        writer.append("numbers", np.zeros(1, np.int64))
        with pytest.raises(ValueError, match="rows of float64"):
            writer.append("numbers", np.zeros(1, np.float64))
        with pytest.raises(ValueError, match="in a column of int64"):
            writer.append("numbers", np.zeros((1, 2), np.int64))


def test_strings_view_any_arrays() -> None:
    view = Strings(np.frombuffer(b"abcdef", np.uint8), np.array([0, 2, 2, 6]))
    assert (len(view), view[0], view[1:], view[::-1]) == (3, b"ab", [b"", b"cdef"], [b"cdef", b"", b"ab"])


def test_a_store_of_version_1_still_opens() -> None:
    store = ColumnStore.open(DATA / "columns_v1", kind="test")
    store.verify()
    assert store.attrs == {"size": 500}
    assert store["numbers"].tolist() == [3, 1, 4, 1, 5]
    assert store.strings("words")[:] == [b"one", b"", b"three"]
    assert store.digest == "c02ff507cabc7565ea5f9934708962ce0ef4f350dca43f2119607af06481057f"
