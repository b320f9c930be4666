"""What accumulation costs, by the size of the micro-batch: numbers and a table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost", "CostAt"]


@dataclass(frozen=True)
class CostAt:
    """What accumulation costs at one micro-batch size, relative to the gradient.

    Parameters
    ----------
    micro_batch_size
        Samples in a micro-batch, at most.
    error
        ‖g_p - g‖ / ‖g‖, mean over partitions.
    systematic
        ‖mean_p g_p - g‖ / ‖g‖.
    standard_error
        What chance alone would leave of `systematic`.

    Examples
    --------
    >>> CostAt(4, error=0.6, systematic=0.3, standard_error=0.04).is_systematic
    True
    """

    micro_batch_size: int
    error: float
    systematic: float
    standard_error: float

    @property
    def is_systematic(self) -> bool:
        """Whether the mean is off by more than two standard errors, and rounding."""
        return self.systematic > max(2 * self.standard_error, 1e-4)


@dataclass(frozen=True)
class Cost:
    """What accumulation costs a model; `str` gives a table.

    Parameters
    ----------
    samples
        Samples in the whole batch.
    partitions
        Random partitions for each size.
    sizes
        One entry for each size of the micro-batch.

    Examples
    --------
    >>> print(Cost(64, 20, (CostAt(4, 0.61, 0.32, 0.04),)))
    Gradient accumulation against the whole batch of 64 samples, 20 random partitions
    micro-batch  error of one  error of mean     s.e.
              4          0.61           0.32     0.04  systematic
    """

    samples: int
    partitions: int
    sizes: tuple[CostAt, ...]

    @property
    def ok(self) -> bool:
        """Whether accumulation gives the gradient of the whole batch, to rounding."""
        return all(at.error < 1e-4 for at in self.sizes)

    def __str__(self) -> str:
        title = (
            f"Gradient accumulation against the whole batch of {self.samples} samples, "
            f"{self.partitions} random partitions"
        )
        lines = [
            title,
            "micro-batch  error of one  error of mean     s.e.",
        ]
        for at in self.sizes:
            line = (
                f"{at.micro_batch_size:11d}  {at.error:12.2g}  {at.systematic:13.2g}  "
                f"{at.standard_error:7.1g}"
            )
            lines.append(line + ("  systematic" if at.is_systematic else ""))
        return "\n".join(lines)
