"""Small arrays and pure statistics: the nouns that all floors above speak in."""

from __future__ import annotations
