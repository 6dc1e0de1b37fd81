"""Fit a classifier to rows of features: the published recipe, and early stopping on rows that are held out.

Shapes: N rows, D features, H hidden units, 2 classes.
"""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from virnucpro_core.errors import UsageError
from virnucpro_core.models.classifier import Classifier, ClassifierNet, Features

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit. The defaults are the published recipe.

    epochs: at most this many. patience: with held-out rows, stop after this many epochs without a lower loss of
    theirs. class_weights: both classes weigh the same in the loss, whatever their numbers.
    """

    hidden: int = 512
    epochs: int = 200
    seed: int = 42
    batch_size: int = 32
    learning_rate: float = 0.0002
    patience: int = 20
    class_weights: bool = False


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Outcome of a fit: mean loss of each epoch, and the last training accuracy (0 to 1).

    held_out_losses: of the held-out rows, for each epoch. best_epoch: from 1, the epoch whose weights were kept.
    """

    rows: int
    epochs: int
    losses: tuple[float, ...]
    accuracy: float
    held_out_losses: tuple[float, ...] = ()
    best_epoch: int = 0

    @property
    def held_out_loss(self) -> float:
        """The loss of the held-out rows with the weights that were kept."""
        return self.held_out_losses[self.best_epoch - 1]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Standardised features (N, D) and labels (N,)."""

    x_ND: torch.Tensor
    y_N: torch.Tensor


def train_classifier(
    features: Features,
    labels: Labels,
    recipe: Recipe | None = None,
    held_out: tuple[Features, Labels] | None = None,
) -> tuple[Classifier, TrainingReport]:
    """Train on (N, D) float32 features and (N,) labels 0 = others, 1 = virus, on the CPU.

    The same seed gives the same bytes. The published recipe (Xavier initialisation, cross-entropy, SGD with momentum
    0.9, learning rate x 0.85 every ten epochs, batches of 32), with one addition: columns are standardised for
    training and the scaling is then folded into the first layer, so that training does not depend on the scale of an
    encoder's features. held_out: features and labels that are not trained on; the weights of the epoch with their
    lowest loss are kept. Raises UsageError if a class has fewer than two rows or a feature is not finite.
    """
    recipe = recipe or Recipe()
    counts = np.bincount(labels, minlength=2)
    if len(counts) != 2 or counts.min() < 2 or len(labels) != len(features):
        raise UsageError(f"training needs at least two rows of both classes, got {counts.tolist()}")
    if not all(np.isfinite(part).all() for part in (features, *([held_out[0]] if held_out else []))):
        raise UsageError(
            "training features hold values that are not finite", remedy="embed the sequences again"
        )
    mean_D, spread_D = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread_D[spread_D < 1e-12] = 1.0

    def standardised(values_ND: Features, values_N: Labels) -> _Rows:
        x_ND = ((values_ND - mean_D) / spread_D).astype(np.float32)
        return _Rows(torch.from_numpy(x_ND), torch.from_numpy(values_N.astype(np.int64)))

    weight = torch.tensor(len(labels) / (2 * counts), dtype=torch.float32) if recipe.class_weights else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = ClassifierNet(features.shape[1], recipe.hidden)
        nn.init.xavier_uniform_(net.hidden_layer.weight)
        nn.init.xavier_uniform_(net.output_layer.weight)
        kept = standardised(*held_out) if held_out else None
        losses, held_losses, best = _descend(net, standardised(features, labels), kept, recipe, weight)
    with torch.no_grad():
        scale_D = torch.from_numpy(1.0 / spread_D)
        weight_HD = net.hidden_layer.weight.double() * scale_D
        net.hidden_layer.bias.sub_((weight_HD @ torch.from_numpy(mean_D)).float())
        net.hidden_layer.weight.copy_(weight_HD.float())
    classifier = Classifier(net.state_dict(), device=torch.device("cpu"))
    accuracy = float((classifier.score(features).argmax(axis=1) == labels).mean())
    return classifier, TrainingReport(
        len(labels), len(losses), tuple(losses), accuracy, tuple(held_losses), best
    )


def _descend(
    net: ClassifierNet, rows: _Rows, held_out: _Rows | None, recipe: Recipe, weight: torch.Tensor | None
) -> tuple[list[float], list[float], int]:
    """Fit `net` in place. Returns mean loss and held-out loss of each epoch, and the epoch (from 1) that was kept.

    Skips a last batch of one row (BatchNorm).
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=recipe.learning_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.85)
    losses: list[float] = []
    held_losses: list[float] = []
    best, state = 0, net.state_dict()
    for epoch in range(1, recipe.epochs + 1):
        net.train()
        total, seen = 0.0, 0
        order = torch.randperm(len(rows.y_N))
        for start in range(0, len(order) - 1, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(rows.x_ND[batch]), rows.y_N[batch], weight=weight)
            torch.autograd.backward(loss)
            optimizer.step()
            total, seen = total + loss.item() * len(batch), seen + len(batch)
        schedule.step()
        losses.append(total / seen)
        if held_out is None:
            best = epoch
            continue
        held_losses.append(_loss(net, held_out, weight))
        if best == 0 or held_losses[-1] < held_losses[best - 1]:
            best, state = epoch, copy.deepcopy(net.state_dict())
        elif epoch - best >= recipe.patience:
            break
    if held_out is not None:
        net.load_state_dict(state)
    return losses, held_losses, best


@torch.no_grad()  # type: ignore[untyped-decorator]
def _loss(net: ClassifierNet, rows: _Rows, weight: torch.Tensor | None) -> float:
    net.eval()
    return float(nn.functional.cross_entropy(net(rows.x_ND), rows.y_N, weight=weight))
