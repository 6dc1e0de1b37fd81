"""Converting a `.bin` needs the memory of its largest tensor, not of the file."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from virnucpro_core.encoders.model_folder import Esm2Shape
from virnucpro_core.models.convert import ESM2_CONFIG

LAYERS, WIDTH = 14, 448
# Prints by how much the process grew at most while it converted, in bytes.
CONVERT = """
import re, sys
from pathlib import Path
import torch
from virnucpro_core.models.convert import import_model

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

import_model("esm2", Path(sys.argv[1]) / "small", Path(sys.argv[2]) / "warm")
before = peak()
import_model("esm2", Path(sys.argv[1]) / "large", Path(sys.argv[2]) / "out")
print(peak() - before)
"""


def published(folder: Path, layers: int, width: int) -> Path:
    """A folder as Hugging Face has it, in two parts of random weights."""
    folder.mkdir()
    config = ESM2_CONFIG | {
        "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": 4, "intermediate_size": 4 * width,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    shapes = Esm2Shape.read(folder).tensors()
    names = sorted(shapes)
    weight_map = {}
    for part, some in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-0000{part + 1}-of-00002.bin"
        state = {f"esm.{name}": torch.randn(shapes[name], generator=generator) for name in some}
        torch.save(state, folder / file)
        weight_map |= dict.fromkeys(state, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_conversion_takes_the_memory_of_a_tensor(tmp_path: Path) -> None:
    published(tmp_path / "small", 1, 64)
    large = published(tmp_path / "large", LAYERS, WIDTH)
    size = sum(file.stat().st_size for file in large.glob("*.bin"))
    largest = 4 * WIDTH * WIDTH * 4
    assert size > 40 * largest
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, tmp_path, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 6 * largest, f"{int(done.stdout):,} of {size:,} bytes"
    assert (tmp_path / "out/model.safetensors").stat().st_size > 0.99 * size
