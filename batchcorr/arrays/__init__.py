"""What a matrix is: the two passes, for every kind of matrix there is.

`moments` reads a matrix once and gathers the sufficient statistics; `apply` reads it
once and writes the corrected values. Each kind of matrix has one room here, a file that
registers its few verbs and is imported when its first matrix comes in.
"""

from __future__ import annotations

from batchcorr.arrays.passes import apply, moments

__all__ = ["apply", "moments"]
