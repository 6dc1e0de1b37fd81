"""Encoders that stay loaded: one copy for all threads of a block, none after it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from virnucpro_core.encoders import loaded
from virnucpro_core.encoders.encoder import Encoder, load_encoder
from virnucpro_core.encoders.loaded import kept_encoders, verified_encoder
from virnucpro_core.models.profiles import DEMO


def test_threads_share_one_copy_of_each_encoder_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def slow(kind: Any, *arguments: Any, **options: Any) -> Encoder:
        loads.append(kind)
        time.sleep(0.2)
        return load_encoder(kind, *arguments, **options)

    def get(kind: Any) -> Encoder:
        folder = DEMO / ("esm2" if kind == "esm2" else "dnabert_s")
        return verified_encoder(
            kind,
            folder,
            device=torch.device("cpu"),
            dtype=torch.float32,
            attention="reference",
            overlong="truncate",
        )

    monkeypatch.setattr(loaded, "load_encoder", slow)
    with ThreadPoolExecutor(6) as threads:
        with kept_encoders():
            kept = list(threads.map(get, ["esm2", "dnabert-s", "esm2", "esm2", "dnabert-s", "esm2"]))
            assert sorted(loads) == ["dnabert-s", "esm2"]
            assert len({id(encoder) for encoder in kept}) == 2
        assert get("esm2") is not kept[0]
    assert sorted(loads) == ["dnabert-s", "esm2", "esm2"]
