"""A message on the page after a form, in a small cookie: shown once, then deleted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

FlashKind = Literal["added", "changed", "deleted", "reviewed", "unreviewed", "tagged", "renamed"]

# Base64 of 200 characters of four bytes, and the longest kind; a longer cookie is not ours.
_MAX_LENGTH = 1100
_MAX_AGE_S = 60


@dataclass(frozen=True, slots=True)
class Flash:
    """A message about the book `title`, or about the tag of this name if it was renamed.

    The cookie comes back from outside, so it is only trusted to choose a sentence and to fill in a title,
    which is escaped like any other text.
    """

    COOKIE: ClassVar[str] = "flash"
    PATH: ClassVar[str] = "/books"

    kind: FlashKind
    title: str

    FORGET: ClassVar[str] = f'{COOKIE}=""; HttpOnly; Max-Age=0; Path={PATH}; SameSite=lax'
    """The value of `Set-Cookie` after which the message is not shown again."""

    def cookie(self, scheme: str) -> str:
        """Returns the value of `Set-Cookie` with this message for the next page; `scheme` is the request's."""
        encoded = base64.urlsafe_b64encode(self.title.encode()).decode()
        secure = "; Secure" if scheme == "https" else ""
        rules = f"HttpOnly; Max-Age={_MAX_AGE_S}; Path={self.PATH}; SameSite=lax{secure}"
        return f'{self.COOKIE}="{self.kind}.{encoded}"; {rules}'

    @classmethod
    def of(cls, cookies: Mapping[str, str]) -> Flash | None:
        """Returns the message in the cookies of a request; None without a message, or with a forged message."""
        kind, _, encoded = cookies.get(cls.COOKIE, "")[:_MAX_LENGTH].partition(".")
        if kind not in get_args(FlashKind):
            return None
        try:
            title = base64.b64decode(encoded, altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return cls(cast(FlashKind, kind), title) if 0 < len(title) <= 200 else None
