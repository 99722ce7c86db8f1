"""The rules for the fields of messages."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from diptych import Rule

SKU = r"[A-Z0-9][A-Z0-9-]{0,39}"
NAME = r"[a-z][a-z0-9_-]{0,39}"
PRICE = r"[0-9]{1,6}(\.[0-9]{1,2})?"
CENT = Decimal("0.01")


def _sku(text: str) -> str:
    if not re.fullmatch(SKU, text):
        raise ValueError("must have capital letters A-Z, digits and hyphens, and not begin with a hyphen")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError("must have letters a-z, digits, - and _, and begin with a letter")
    return text


def _line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("must not contain control characters")
    return text


def _price(price: Decimal) -> Decimal:
    if not price.is_finite() or price.is_signed() or price >= 1_000_000:
        raise ValueError("must be from 0 to 999999.99")
    if price != (exact := price.quantize(CENT)):
        raise ValueError("must have at most two decimal places")
    return exact


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must not name anything twice")
    return names


def _text(pattern: str) -> Meta:
    return Meta(min_length=1, max_length=40, extra_json_schema={"pattern": f"^{pattern}$"})


Id = Annotated[int, Meta(ge=1, le=2_147_483_647)]
Sku = Annotated[str, _text(SKU), Rule(_sku)]
Name = Annotated[str, _text(NAME), Rule(_name)]
Title = Annotated[str, Meta(min_length=1, max_length=100), Rule(_line)]
Price = Annotated[Decimal, Meta(extra_json_schema={"pattern": f"^{PRICE}$"}), Rule(_price)]
Stock = Annotated[int, Meta(ge=0, le=1_000_000)]
Quantity = Annotated[int, Meta(ge=1, le=1_000)]
Roles = Annotated[list[Name], Meta(max_length=20, extra_json_schema={"uniqueItems": True}), Rule(_different)]
Limit = Annotated[int, Meta(ge=1, le=100)]
