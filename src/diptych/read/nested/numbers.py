"""Totals and averages, exact: the same from every database, however it adds."""

from __future__ import annotations

import decimal
from typing import Any

from diptych.sql.description import Unreadable

EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
"""A context in which no number is rounded."""

_NO_NUMBER = Unreadable("can't be added up: a value is no number")


class Sum:
    """The sum of values and their number, nulls aside. ``rows`` is the number of rows, those with nulls included."""

    def __init__(self) -> None:
        self._sum: Any = 0
        self.count = 0
        self.rows = 0

    def add(self, value: Any, times: int, *, is_sum: bool = False) -> None:
        """Adds a value as often as it is there; or the sum of so many values."""
        if value is None:
            return
        self.count += times
        if isinstance(self._sum, Unreadable) or not _is_finite(value):
            self._sum = _NO_NUMBER
        elif isinstance(value, decimal.Decimal):
            added = value if is_sum else EXACT.multiply(value, decimal.Decimal(times))
            self._sum = EXACT.add(self._sum, added)
        else:
            self._sum += value if is_sum else value * times

    def total(self, scale: int | None) -> Any:
        """Returns the sum with this number of decimal places; as it is, if it has more or there is no scale."""
        found = self._sum
        if not isinstance(found, decimal.Decimal | int):
            return found
        return found if scale is None and isinstance(found, int) else _scaled(decimal.Decimal(found), scale)

    def average(self, places: int) -> Any:
        """Returns the average, rounded half up, away from zero; None without values."""
        if self.count == 0 or isinstance(self._sum, Unreadable):
            return self._sum if self.count else None
        # Not of abs(), which rounds a Decimal to the digits of the context.
        numerator, denominator = self._sum.as_integer_ratio()
        divisor = denominator * self.count
        rounded = (2 * abs(numerator) * 10**places + divisor) // (2 * divisor)
        return decimal.Decimal(-rounded if self._sum < 0 else rounded).scaleb(-places, EXACT)


def _is_finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, decimal.Decimal) else isinstance(value, int)


def _scaled(value: decimal.Decimal, scale: int | None) -> decimal.Decimal:
    exact = value.normalize(EXACT)
    exponent = exact.as_tuple().exponent
    least = 0 if scale is None else scale
    if isinstance(exponent, int) and exponent > -least:
        return exact.quantize(decimal.Decimal(1).scaleb(-least, EXACT), context=EXACT)
    return exact
