"""What a command reads is never replaced by what it writes."""

import os
from pathlib import Path

import pytest

from virnucpro_core.errors import UsageError
from virnucpro_core.files.overwriting import keep_inputs


@pytest.fixture
def read(tmp_path: Path) -> Path:
    file = tmp_path / "data" / "v.fa"
    file.parent.mkdir()
    file.write_text(">v\nACGT\n")
    return file


def test_an_output_with_any_name_of_an_input_is_refused(read: Path, tmp_path: Path) -> None:
    (tmp_path / "link.fa").symlink_to(read)
    os.link(read, tmp_path / "same.fa")
    (tmp_path / "folder").symlink_to(read.parent)
    for name in ("data/v.fa", "data/../data/v.fa", "link.fa", "same.fa", "folder/v.fa"):
        with pytest.raises(UsageError, match="is read by this command") as caught:
            keep_inputs([tmp_path / "new.fa", tmp_path / name], [read])
        assert caught.value.remedy == "give another --out"
        with pytest.raises(UsageError, match="is read by this command"):
            keep_inputs([read], [tmp_path / name])


def test_a_folder_with_an_input_in_it_is_refused(read: Path, tmp_path: Path) -> None:
    for out in (read.parent, tmp_path, tmp_path.parent):
        with pytest.raises(UsageError, match=r"would be replaced, and .*v\.fa in it is read"):
            keep_inputs([out], [read])
    (tmp_path / "link.fa").symlink_to(read)
    with pytest.raises(
        UsageError, match=r"link\.fa in it is read"
    ):  # the folder of the link, and of the file
        keep_inputs([tmp_path], [tmp_path / "link.fa"])
    with pytest.raises(UsageError, match=r"link\.fa in it is read"):
        keep_inputs([read.parent], [tmp_path / "link.fa"])


def test_a_file_of_a_folder_that_is_read_is_refused(read: Path) -> None:
    with pytest.raises(UsageError, match="this command reads the folder"):
        keep_inputs([read], [read.parent])
    keep_inputs([read.parent / "new.fa"], [read.parent])


def test_all_others_are_allowed(read: Path, tmp_path: Path) -> None:
    beside = read.parent / "other.fa"
    beside.write_text("")
    keep_inputs([beside, tmp_path / "none" / "v.fa"], [read, tmp_path / "missing.fa"])
    (tmp_path / "other").mkdir()
    keep_inputs([tmp_path / "other"], [tmp_path / "other" / ".." / "data" / "v.fa"])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    keep_inputs([tmp_path / "loop"], [tmp_path / "loop" / "v.fa", read])
