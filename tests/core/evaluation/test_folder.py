"""Whose files lie in the folder of an evaluation."""

import json
from pathlib import Path

import pytest

from virnucpro_core.errors import UsageError
from virnucpro_core.evaluation.folder import check_folder, check_pieces
from virnucpro_core.samples.inputs import content_digest, digest_inputs


def test_pieces_are_replaced_if_they_are_of_an_earlier_run(tmp_path: Path) -> None:
    out, new = tmp_path / "out", tmp_path / "new.fa"
    (out / "predictions").mkdir(parents=True)
    new.write_text(">a:1-4\nACGT\n")
    check_pieces(out, new)  # there are none
    (out / "pieces.fa").write_text(">b:1-4\nTTTT\n")
    with pytest.raises(UsageError, match=r"holds pieces\.fa, which is not of this evaluation; give another"):
        check_pieces(out, new)
    digests = {"digests": {"sample": content_digest(digest_inputs([out / "pieces.fa"]))}}
    for file, facts in (("evaluation.json", {"run": digests}), ("predictions/run.json", digests)):
        (out / file).write_text(json.dumps(facts))
        check_pieces(out, new)
        (out / file).write_text("{")
        with pytest.raises(UsageError, match=r"holds pieces\.fa"):
            check_pieces(out, new)
    (out / "pieces.fa").write_bytes(
        new.read_bytes()
    )  # an earlier run was interrupted before it had any result
    check_pieces(out, new)
    (out / "pieces.fa").unlink()
    (out / "pieces.fa").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds pieces\.fa"):
        check_pieces(out, new)


def test_an_evaluation_replaces_its_own_files_only(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", "s", force=False)
    (tmp_path / "evaluation.tsv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds evaluation\.tsv, which is not of this evaluation"):
        check_folder(tmp_path, "s", force=False)
    (tmp_path / "evaluation.json").write_text(json.dumps({"run": {"sample": "s"}}))
    check_folder(tmp_path, "s", force=False)
    with pytest.raises(UsageError, match="holds the evaluation of 's'; give another --out"):
        check_folder(tmp_path, "t", force=False)
    check_folder(tmp_path, "t", force=True)
