"""The words of the Python functions in messages, as they are typed on the command line."""

from __future__ import annotations

import re

__all__ = ["as_typed"]

WORDS = (
    (r"\badata\.obs\b", "obs (or SHEET)"),
    (r"\bdense=True\b", "--dense"),
    (r"\bkey_added=(?!\w)", "--key-added"),
    (r"\b(\w+=(?:True|False))\b", r"--set \1"),
)


def as_typed(message: str) -> str:
    """A message in the words of the command line."""
    for pattern, words in WORDS:
        message = re.sub(pattern, words, message)
    return message
