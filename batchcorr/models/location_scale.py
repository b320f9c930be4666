r"""The frozen correction: one affine map per batch and feature.

    y[i, g] = r[b, g] x[i, g] + s[b, g] + (1 - r[b, g]) z[i] β[:, g] - w[i] η[:, g]

with b the batch of row i, r the scale, s the shift, z the protected covariates, w the
nuisances. Standardization, linear removal, ComBat and BatchNorm differ only in how they
find these arrays; whatever is done with them is done here once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from batchcorr.errors import InputError
from batchcorr.models.namespace import Array, namespace

if TYPE_CHECKING:
    from batchcorr.models.moments import Moments

__all__ = ["LocationScale"]


@dataclass(frozen=True)
class LocationScale:
    """A correction for B batches and G features, p covariates and q nuisances.

    Attributes
    ----------
    scale
        r: (B, G), 1 where nothing is to be scaled.
    shift
        s: (B, G).
    coefficients
        β of the protected covariates: (p, G).
    nuisance
        η of the nuisances: (q, G).
    """

    scale: Array
    shift: Array
    coefficients: Array
    nuisance: Array

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return int(self.scale.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.scale.shape[1])

    @property
    def needs_covariates(self) -> bool:
        """Whether covariates enter the map: only where something is scaled."""
        xp = namespace(self.scale)
        return self.coefficients.shape[0] > 0 and bool(xp.any(self.scale != 1))

    def slopes(self, kept: int) -> Array:
        """Return what a unit of each design column adds, by batch: (B, kept + q, G).

        Kept columns add their coefficient in the share 1 - r, nuisances take theirs
        away in the share r; `kept` is p, or 0 where the covariates are left out.
        """
        xp = namespace(self.scale)
        share = (1 - self.scale)[:, None, :] * self.coefficients[None, :kept, :]
        whole = -self.scale[:, None, :] * self.nuisance[None, ...]
        return xp.concat([share, whole], axis=1)

    def moments(self, before: Moments, kept: int) -> Moments:
        r"""The moments of the corrected values, from those of the values before.

        .. math::
            \bar y_b = r_b \bar x_b + s_b + t_b \bar z_b, \quad C^y_b = r_b C_b + S_b t_b,
            \quad M^y_b = r_b^2 M_b + 2 r_b t_b C_b + t_b S_b t_b

        with t what a unit of each column adds (`slopes`).

        Parameters
        ----------
        before
            With the columns of the design, nuisances among them.
        kept
            p, or 0 where the covariates are left out.

        Examples
        --------
        >>> import numpy as np
        >>> from batchcorr.arrays import moments
        >>> from batchcorr.design.design import Design
        >>> none = np.empty((0, 1))
        >>> halve = LocationScale(np.full((1, 1), 0.5), np.ones((1, 1)), none, none)
        >>> x = moments(np.array([[2.0], [6.0]]), Design.of([0, 0]))
        >>> halve.moments(x, 0).mean.item(), halve.moments(x, 0).squares.item()
        (3.0, 2.0)
        """
        xp = namespace(self.scale)
        r, t = self.scale, self.slopes(kept)
        if before.gram.shape[-1] == 1:
            turned = xp.matmul(before.gram[..., 0], t)  # S t
        else:
            turned = xp.sum(before.gram * t[:, None, ...], axis=2)
        return replace(
            before,
            mean=r * before.mean + self.shift + xp.sum(t * before.columns, axis=1),
            squares=r**2 * before.squares
            + xp.sum(t * (2 * r[:, None, :] * before.cross + turned), axis=1),
            cross=r[:, None, :] * before.cross + turned,
        )

    def select(self, features: Array) -> Self:
        """Return the correction of some features only."""
        return type(self)(
            scale=self.scale[:, features],
            shift=self.shift[:, features],
            coefficients=self.coefficients[:, features],
            nuisance=self.nuisance[:, features],
        )

    def scatter(self, positions: Array, n_features: int) -> Self:
        """Return the correction of more features: at `positions` these, else none."""
        xp = namespace(self.scale)
        scattered = {}
        for name in ("scale", "shift", "coefficients", "nuisance"):
            known = getattr(self, name)
            rest = xp.ones if name == "scale" else xp.zeros
            scattered[name] = rest((known.shape[0], n_features), dtype=known.dtype)
            scattered[name][:, positions] = known
        return type(self)(**scattered)

    def inverse(self) -> Self:
        r"""Return the correction that undoes this one: scale 1/r, shift -s/r, η -η.

        Raises
        ------
        InputError
            If nuisances are removed by a map with r ≠ 1, which no η undoes for all batches.

        Examples
        --------
        >>> import numpy as np
        >>> none = np.empty((0, 1))
        >>> halve = LocationScale(np.full((1, 1), 0.5), np.ones((1, 1)), none, none)
        >>> halve.inverse().scale.item(), halve.inverse().shift.item()
        (2.0, -2.0)
        """
        xp = namespace(self.scale)
        if self.nuisance.shape[0] and bool(xp.any(self.scale != 1)):
            msg = (
                "A correction that scales values and removes nuisance effects cannot "
                "be inverted: keep the uncorrected values."
            )
            raise InputError(msg)
        return type(self)(
            scale=1 / self.scale,
            shift=-self.shift / self.scale,
            coefficients=self.coefficients,
            nuisance=-self.nuisance,
        )

    def extend(self, other: Self) -> Self:
        """Return the correction with the batches of `other` after its own."""
        xp = namespace(self.scale)
        return type(self)(
            scale=xp.concat([self.scale, other.scale], axis=0),
            shift=xp.concat([self.shift, other.shift], axis=0),
            coefficients=self.coefficients,
            nuisance=self.nuisance,
        )
