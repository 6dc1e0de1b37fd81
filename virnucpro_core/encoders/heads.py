"""The attention heads of a model: their number and size, rotary positions or ALiBi slopes.

Shapes: H heads, K head size, P positions of a table.
"""

from dataclasses import dataclass

import torch

ROTARY_BASE = 10_000.0


class Rotary:
    """cos and sin of rotary positions, (P, K/2) float32: half precision costs 8e-3 at position 1,000.

    Su et al. 2021, as in ESM-2: angle(p, i) = p * 10000^(-2i/K), the halves of a head are rotated, BOS is 0.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._rates = 1.0 / (ROTARY_BASE ** (torch.arange(0, size, 2).float() / size))
        self._device = device
        self._tables = self._computed(1026)  # as one, for another thread sees either the old or the new ones

    def tables(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tables for at least `length` positions; they grow where a longer sequence comes."""
        tables = self._tables
        if length > len(tables[0]):
            self._tables = tables = self._computed(max(length, 2 * len(tables[0])))
        return tables

    def _computed(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.outer(torch.arange(length).float(), self._rates)
        return angles.cos().to(self._device), angles.sin().to(self._device)


@dataclass(frozen=True, slots=True)
class Heads:
    """Softmax attention of H heads of size K: scores scaled by K^-0.5, with rotary positions or ALiBi slopes.

    `slopes_H` float32: score(i, j) -= slope * |i - j|. `e4m3_scale`: where the kernel `triton` is to return e4m3,
    the factor that brings every possible output into its range.
    """

    count: int
    size: int
    rotary: Rotary | None = None
    slopes_H: torch.Tensor | None = None
    e4m3_scale: float | None = None

    @property
    def scale(self) -> float:
        return float(self.size**-0.5)


def alibi_slopes(heads: int) -> list[float]:
    """ALiBi slopes (Press et al. 2021): for a power of two n the powers of 2^(-8/n); else those of the power
    of two below, then every second one of twice that.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    if power < heads:
        slopes += alibi_slopes(2 * power)[0::2][: heads - power]
    return slopes
