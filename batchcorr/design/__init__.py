"""What is known of each row: labels, covariates, formulas, and what they confound."""

from __future__ import annotations
