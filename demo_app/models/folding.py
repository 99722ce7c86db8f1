"""Text without case and accents, to search by."""

from __future__ import annotations

import unicodedata

MAX_LENGTH = 200
"""Number of characters of a folded text at most; one letter may become several."""

# Letters whose stroke or ligature is part of the letter for Unicode, and an accent for a person who searches.
_PLAIN = str.maketrans("øđðħıłŧ", "oddhilt") | {ord("æ"): "ae", ord("œ"): "oe", ord("þ"): "th"}


def folded(text: str) -> str:
    """Returns the text without case and accents: "Émile ZOLA" and "emile zola" are the same."""
    if text.isascii():
        return text.lower()[:MAX_LENGTH]
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in apart if not unicodedata.combining(c)).translate(_PLAIN)[:MAX_LENGTH]
