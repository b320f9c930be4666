"""How the statistics of a support err, for every size: tables of what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.channel_shrinkage import Null

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NullTable"]


@dataclass(frozen=True)
class NullTable:
    """How a layer's statistics err at S support sizes, C channels.

    Errors depend on how much of the support's peculiarity the layers before have
    absorbed: nothing or all of it (second axis).

    Attributes
    ----------
    location_noise, log_variance
        (S, 2, C); log variances are NaN where a single row has none.
    log_bias
        (S, C).
    effective
        Independent channels that means and log variances count for: (2,).
    """

    location_noise: NDArray[np.float64]
    log_variance: NDArray[np.float64]
    log_bias: NDArray[np.float64]
    effective: NDArray[np.float64]

    def at(
        self,
        sizes: NDArray[np.int64],
        n: int,
        absorbed: tuple[float, float],
        *,
        single: bool,
    ) -> Null:
        """The null for n samples: between sizes log-linear, beyond them as 1/n.

        Parameters
        ----------
        sizes
            The S support sizes.
        n
            Samples in the support.
        absorbed
            Shares of location and scale that the layers before have absorbed.
        single
            Whether a channel has one row in all, which tells nothing of its variance.
        """
        noise, spread = (
            (1 - share) * table[:, 0] + share * table[:, 1]
            for share, table in zip(
                absorbed, (self.location_noise, self.log_variance), strict=True
            )
        )
        measured = ~np.isnan(self.log_bias[:, 0])
        variance = bias = None
        if not single and measured.any():
            variance = _between(sizes[measured], spread[measured], n)
            bias = _between(sizes[measured], self.log_bias[measured], n)
        return Null(
            location_noise=_between(sizes, noise, n),
            log_bias=bias,
            log_variance=variance,
            effective_locations=float(self.effective[0]),
            effective_scales=float(self.effective[1]),
        )


def _between(
    sizes: NDArray[np.int64], values: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Values at n, interpolated as n · value over log n."""
    scaled = values * sizes[:, None]
    place = np.interp(np.log(n), np.log(sizes), np.arange(len(sizes)))
    low = int(place)
    high = min(low + 1, len(sizes) - 1)
    at: NDArray[np.float64] = scaled[low] + (place - low) * (scaled[high] - scaled[low])
    return at / n
