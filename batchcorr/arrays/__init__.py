"""What a matrix is: the two passes, for every kind of matrix there is.

`moments` reads a matrix once and gathers the sufficient statistics; `apply` reads it
once and writes the corrected values. What differs between kinds of matrix is in
`operations`; the files of a kind begin with the library that it is of.
"""

from __future__ import annotations

from batchcorr.arrays.passes import apply, moments

__all__ = ["apply", "moments"]
