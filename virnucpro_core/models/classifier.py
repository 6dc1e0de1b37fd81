"""The published classifier: score rows of features with it, save and load it. `fitting.py` trains it.

It has one hidden layer over the merged features and two classes. Each row of features gives the probabilities
of `others` and `virus`. All computations are in float32.

Shapes: N rows, D = DNABERT-S width + ESM-2 width, H hidden units, 2 classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from virnucpro_core.devices.cuda import usable_device
from virnucpro_core.encoders.operations import least_rows, padded
from virnucpro_core.errors import WeightsError
from virnucpro_core.files.publish import publish_json
from virnucpro_core.files.safetensors import TensorSource, write_tensors
from virnucpro_core.models.classifier_folder import CLASSES, ClassifierWeights, dimensions, read_classifier

SCORE_ROWS = 4096

Features = npt.NDArray[np.float32]


class ClassifierNet(nn.Module):
    """Linear(D, H), BatchNorm1d, ReLU, Dropout(0.5), Linear(H, 2); attribute names as published."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(input_dim, hidden_dim)
        self.bn1 = nn.BatchNorm1d(hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, len(CLASSES))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) float32 -> (N, 2) logits."""
        hidden_NH = torch.relu(self.bn1(self.hidden_layer(x_ND)))
        logits: torch.Tensor = self.output_layer(self.dropout(hidden_NH))
        return logits


class Classifier:
    """A classifier on one device, ready to score.

    `input_dim` is D, `hidden_dim` is H; `chunk_size` is the number of bases it was trained for (None: unknown);
    `fingerprint` is the sha256 of names, shapes and values, which does not depend on the files they came from.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], *, device: torch.device, chunk_size: int | None = None
    ) -> None:
        self.input_dim, self.hidden_dim = dimensions(
            {name: (str(tensor.dtype)[6:], tuple(tensor.shape)) for name, tensor in state.items()}
        )
        self.device, self.chunk_size = device, chunk_size
        self.state = {name: state[name].detach().to("cpu").contiguous() for name in sorted(state)}
        self._weights = ClassifierWeights({n: t.numpy() for n, t in self.state.items()}, chunk_size)
        self.fingerprint = self._weights.fingerprint
        with torch.device("meta"):  # skips the random initialisation, which would be overwritten
            net = ClassifierNet(self.input_dim, self.hidden_dim)
        net.load_state_dict(self.state, assign=True)
        self._net = net.to(device).eval()
        self._least_rows = max(least_rows(self.input_dim), least_rows(self.hidden_dim))

    def score(self, features: Features) -> Features:
        """(N, D) float32 -> (N, 2) float32 softmax probabilities, columns as `CLASSES`.

        On the CPU a row's scores are bit-identical whatever other rows are in the batch.
        Raises WeightsError with both numbers if D differs from the classifier's.
        """
        if features.ndim != 2 or features.shape[1] != self.input_dim:
            raise WeightsError(
                f"the classifier takes {self.input_dim} features a row, but got an array of shape"
                f" {features.shape}",
                remedy="use the classifier that was trained on these encoders",
            )
        scores_N2 = np.empty((len(features), len(CLASSES)), np.float32)
        with torch.inference_mode():
            for start in range(0, len(features), SCORE_ROWS):
                rows = np.ascontiguousarray(features[start : start + SCORE_ROWS], np.float32)
                # torch warns of memory that it must not write, although it writes nothing here
                tensor = torch.from_numpy(rows if rows.flags.writeable else rows.copy())
                x_PD = padded(tensor.to(self.device), self._least_rows)
                logits_N2 = self._net(x_PD)[: len(rows)]
                scores_N2[start : start + len(rows)] = torch.softmax(logits_N2, dim=1).cpu().numpy()
        return scores_N2

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self._net.parameters())

    def config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return self._weights.config()

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` into `folder` (the same bytes for the same numbers)."""
        tensors = {name: TensorSource.of(tensor) for name, tensor in self.state.items()}
        write_tensors(folder / "model.safetensors", tensors)
        publish_json(folder / "config.json", self.config())


def load_classifier(
    folder: str | Path, device: str | torch.device = "cpu", *, fingerprint: str = ""
) -> Classifier:
    """Load the folder that `Classifier.save` wrote onto the device "cpu", "cuda" or "cuda:i".

    Raises WeightsError if it is missing, damaged or inconsistent, DeviceError if the device does not exist. With a
    `fingerprint`, raises WeightsError also if the folder holds other weights: a folder without a manifest may change
    after its fingerprint became part of the scores' identity and before the scores are computed.
    """
    folder = Path(folder)
    if isinstance(device, str):
        device = usable_device(device, "float32")
    weights = read_classifier(folder)
    state = {name: torch.tensor(values) for name, values in weights.state.items()}
    classifier = Classifier(state, device=device, chunk_size=weights.chunk_size)
    if fingerprint not in ("", classifier.fingerprint):
        raise WeightsError(
            "the classifier's weights changed while the sample was being scored",
            where=folder,
            remedy="leave the folder alone and run the same command again",
        )
    return classifier
