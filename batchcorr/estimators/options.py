"""What options of several functions must be: whole numbers, and rates."""

from __future__ import annotations

from numbers import Integral, Real

from batchcorr.errors import InputError

__all__ = ["check_rate", "check_whole"]


def check_whole(name: str, value: object, least: int, most: float = 2**32 - 1) -> None:
    """Refuse what is not a whole number in a range; `name` is that of the option."""
    number = None if isinstance(value, bool) else value
    if not isinstance(number, Integral) or not least <= int(number) <= most:
        large = isinstance(number, Integral) and int(number) > most
        bound = f"at most {most}" if large else f"at least {least}"
        msg = f"{name} must be a whole number of {bound}, not {value!r:.40}."
        raise InputError(msg)


def check_rate(alpha: object) -> None:
    """Refuse a rate of false positives that is none."""
    if not isinstance(alpha, Real) or not 0 < float(alpha) < 1:
        msg = (
            "alpha, the significance level, must lie between 0 and 1, such as 0.05, "
            f"not {alpha!r:.60}."
        )
        raise InputError(msg)
