"""The text of a formula as Python's syntax tree, and parts of the tree as they were written."""

from __future__ import annotations

import ast
import re
from keyword import iskeyword
from typing import NoReturn

from batchcorr.errors import InputError

__all__ = ["ALLOWED", "FormulaText"]

MAX_LENGTH = 1000
ALLOWED = (
    "Allowed are columns (in backticks if the name has more than letters, digits and "
    "single underscores), 0, 1, + : * -, parentheses, and C, center, scale, poly, bs "
    "and log of a column, with numbers, text, True, False, None or lists as options. "
    "For anything else make a column of the table first."
)
TOKEN = re.compile(
    r"""\s*( "[^"\\\n]*" | '[^'\\\n]*' | `[^`\n]+` | [^\W\d]\w* | [-+*:=,()\[\].]
           | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )""",
    re.VERBOSE,
)
QUOTES = "\"'"


class FormulaText:
    """A formula and its syntax tree, in which ``:`` is written ``**``.

    The two bind alike: tighter than ``*``, which binds tighter than ``+`` and ``-``.
    Names that Python cannot have stand in the tree as ``__0``, ``__1``, …
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: dict[str, str] = {}

    def tree(self) -> ast.expr:
        """Return the syntax tree; nothing is run."""
        text = self.text.strip().removeprefix("~").rstrip()
        if len(text) > MAX_LENGTH:
            self.refuse(f"it has {len(text)} characters, over {MAX_LENGTH}")
        words, place = [], 0
        while place < len(text):
            match = TOKEN.match(text, place)
            if match is None:
                rest = text[place:].strip()
                side = ", nor is a left-hand side" if rest[0] == "~" else ""
                self.refuse(f"{rest[:20]!r} is not allowed{side}")
            words.append(self._word(match[1]))
            place = match.end()
        return ast.parse(" ".join(words), mode="eval").body

    def _word(self, word: str) -> str:
        """Return a token as Python's parser can take it."""
        if word == ":":
            return "**"
        keyword = iskeyword(word) and word.islower()
        if word[0] == "`" or keyword or (word[0] not in QUOTES and not word.isascii()):
            name = f"__{len(self.names)}"
            self.names[name] = word.strip("`")
            return name
        if "__" in word and word[0] not in QUOTES:
            self.refuse(f"{word!r} is not allowed: write such a column in backticks")
        return word

    def refuse(self, why: str) -> NoReturn:
        """Say why the formula cannot be used, and what can be."""
        msg = f"The formula {self.text!r} cannot be used: {why}. {ALLOWED}"
        raise InputError(msg)

    def show(self, node: ast.AST) -> str:
        """Return a part of the formula as the user wrote it, but for spaces."""
        shown = ast.unparse(node).replace("**", ":")
        return re.sub(r"__\d+", self._back, shown)

    def _back(self, match: re.Match[str]) -> str:
        name = self.names.get(match[0])
        return match[0] if name is None else f"`{name}`"
