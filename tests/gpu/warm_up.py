"""Print which kernels a warm-up compiles, and which the sequences after it: `python -m tests.gpu.warm_up FOLDER`.

A process of its own, because kernels that an earlier test has compiled are not compiled again.
"""

import json
import sys
from unittest import mock

import numpy as np
import triton

from benchmarks.seeded import proteins
from virnucpro_core.encoders.encoder import load_encoder


def main() -> None:
    compiled: list[str] = []
    encoder = load_encoder("esm2", sys.argv[1], device="cuda", dtype="fp8")
    with mock.patch.object(
        triton.knobs.runtime, "jit_post_compile_hook", lambda **told: compiled.append(told["fn"].name)
    ):
        encoder.warm_up(168)
        before = len(compiled)
        for count in (3, 500, 1_000):  # from less than a batch to several
            assert np.isfinite(encoder.embed(proteins("short", count))).all()
    print(json.dumps([compiled[:before], compiled[before:]]))


if __name__ == "__main__":
    main()
