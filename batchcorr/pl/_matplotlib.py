"""What all figures share: matplotlib, or what to install; and colours all can tell apart."""

from __future__ import annotations

from batchcorr.errors import MissingPackageError

__all__ = ["BLUE", "GREY", "HUES", "VERMILION", "require_matplotlib"]

# Of the colours of Okabe & Ito, and a grey.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6B6B6B"
HUES = (BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#4D4D4D")
"""One for each of a few groups, in this order; the yellow is too pale on white."""


def require_matplotlib() -> None:
    """Say what to install where matplotlib is not."""
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        msg = (
            "Figures are drawn with matplotlib, which is not installed. Install it "
            'with: pip install "batchcorr[report]"'
        )
        raise MissingPackageError(msg) from error
