"""What a command makes for a person: one command at a time, and nothing is replaced that came during its work."""

import os
from pathlib import Path

import pytest

from virnucpro_core.errors import StoreError, UsageError
from virnucpro_core.files.outputs import check_replaceable, making_files, making_folder
from virnucpro_core.files.publish import publish, publish_folder, publish_together


def test_a_folder_that_would_be_replaced_as_a_whole_must_be_empty(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new")
    check_replaceable(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="would be replaced; give another --out, or --force"):
        check_replaceable(tmp_path)
    check_replaceable(tmp_path, force=True)


def test_a_second_command_with_the_same_files_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "new" / "e.h5"
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with making_files([out]) as check, publish(out, check) as temporary:
        for same in (out, tmp_path / "link" / "e.h5", tmp_path / "new" / "." / "e.h5"):
            with (
                pytest.raises(StoreError, match=rf"another command writes .*e\.h5 .process {os.getpid()}"),
                making_files([tmp_path / "new" / "a", same], force=True),
            ):
                pass
        with making_files([out.with_name("another")]):  # beside it
            temporary.write_text("first")
    assert [(file.name, file.read_text()) for file in out.parent.iterdir()] == [("e.h5", "first")]
    with (
        pytest.raises(UsageError, match=r"e\.h5: already exists; give another --out, or --force"),
        making_files([out]),
    ):
        pass


def test_a_file_that_came_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    with (  # noqa: PT012 - the work
        pytest.raises(UsageError, match="b: already exists"),
        making_files(files) as check,
        publish_together(tmp_path, ["a", "b"], check) as made,
    ):
        for file in made.values():
            file.write_text("ours")
        files[1].write_text("theirs")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("b", "theirs")]
    with making_files(files, force=True) as check, publish(files[1], check) as temporary:
        temporary.write_text("ours")
    assert files[1].read_text() == "ours"


def test_a_folder_that_came_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "classifier"
    with (  # noqa: PT012 - the work
        pytest.raises(UsageError, match="would be replaced"),
        making_folder(out) as check,
        publish_folder(out, check) as folder,
    ):
        (folder / "config.json").touch()
        out.mkdir()
        (out / "theirs").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["classifier", "theirs"]


def test_a_command_that_fails_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), making_files([tmp_path / "a" / "b" / "c"]):
        assert 1 / 0
    assert not list(tmp_path.iterdir())
