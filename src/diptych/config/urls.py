"""Addresses of databases and of Redis: checks at configuration, and masking of passwords.

No message of this module quotes the address: a malformed address may hold a password anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

HIDDEN = "***"
SQLITE = ("sqlite", "sqlite+aiosqlite")
POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")
REDIS = ("redis", "rediss", "unix")

_TELLING = re.compile(r"passw|pwd|secret|token|key|credential", re.IGNORECASE)
_NOT_A_PATH = re.compile(r"(?![./]).*:.*@|.*passw\w*\s*=", re.IGNORECASE | re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?")


class _Option(NamedTuple):
    """An option behind the ``?`` of a URL: its values, as a pattern and in words, and if they may be several."""

    pattern: str = r".+"
    label: str = "text"
    repeats: bool = False


def _one_of(*words: str) -> _Option:
    return _Option("|".join(map(re.escape, words)), f"one of {', '.join(words)}")


_TEXT = _Option()
_SSL_MODE = _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_POSTGRESQL_OPTIONS = {
    "application_name": _TEXT,
    "host": _TEXT._replace(repeats=True),
    "krbsrvname": _TEXT,
    "passfile": _TEXT,
    "port": _Option(r"[0-9]{1,5}(,[0-9]{1,5})*", "a number", repeats=True),
    "prepared_statement_cache_size": _Option(r"[0-9]{1,6}", "a number"),
    "ssl": _SSL_MODE,
    "sslmode": _SSL_MODE,
    "target_session_attrs": _one_of("any", "primary", "read-write"),
}
# Time-outs, pools and protocols are diptych's own business: its promises rest on them.
_REDIS_OPTIONS = {
    "client_name": _Option(r"[!-~]+", "text without blanks"),
    "db": _Option(r"[0-9]{1,9}", "a number as its database"),
    "password": _TEXT,
    "username": _TEXT,
}
_TLS_OPTIONS = {
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": _one_of("true", "false"),
    "ssl_keyfile": _TEXT,
    "ssl_password": _TEXT,
}


def is_telling(name: str) -> bool:
    """Returns whether a value of this name is likely a secret (API_KEY, SMTP_PASSWORD …)."""
    return bool(_TELLING.search(name))


def mask(url: str) -> str:
    """Returns ``url`` with ``***`` in place of every password; a path is returned unchanged.

    If the place of the password cannot be told, nothing after the scheme is shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return HIDDEN if _NOT_A_PATH.match(url) or (separator and "@" in url) else url
    authority, tail = _split(rest)
    if "@" in tail and (authority or scheme not in SQLITE):  # sqlite:///home/me@work/books.db is a path
        return f"{scheme}://{HIDDEN}"
    userinfo, at, host = authority.rpartition("@")
    return f"{scheme}://{_mask_user(scheme, userinfo) if at else ''}{at}{host}{_mask_tail(tail)}"


def _mask_user(scheme: str, userinfo: str) -> str:
    if scheme not in POSTGRESQL + REDIS or "@" in userinfo:
        return HIDDEN  # elsewhere the name alone may be the secret: https://token@host
    user, colon, _ = userinfo.partition(":")
    return f"{user}:{HIDDEN}" if colon else user


def _mask_tail(tail: str) -> str:
    parts = re.split(r"([?&;#])", tail)
    for i, part in enumerate(parts):
        name, equals, _ = part.partition("=")
        if i and equals and is_telling(unquote(name)):
            parts[i] = f"{name}={HIDDEN}"
    return "".join(parts)


def check_database_url(value: object) -> str:
    """Returns ``value``, the path or URL of an SQLite file or of a PostgreSQL database.

    Raises ValueError("must …") for any other value.
    """
    text = _text(value)
    if ":memory:" in text or "mode=memory" in text:
        raise ValueError(
            "must not be an in-memory database, which the reading and the writing connections "
            "could not share: name a file, in a temporary directory if it need not last"
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        _check_path(text)
    elif scheme in SQLITE:
        _check_sqlite(rest)
    elif scheme in POSTGRESQL:
        _check_postgresql(rest)
    else:
        known = ", ".join(f"{name}://" for name in SQLITE + POSTGRESQL)
        raise ValueError(f"must be the path of an SQLite file or a URL that starts with one of {known}")
    return text


def check_redis_url(value: object) -> str:
    """Returns ``value``, the URL of a Redis. Raises ValueError("must …") for any other value."""
    text = _text(value)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in REDIS:
        raise ValueError("must be a URL that starts with one of redis://, rediss://, unix://")
    host, tail = _check_server(rest)
    path, _, query = tail.partition("?")
    if scheme == "unix":
        if path in ("", "/"):
            raise ValueError("must name the socket: unix:///path/of/the.sock")
    elif not host:
        raise ValueError(f"must name a host: {scheme}://host:6379/0")
    elif not re.fullmatch(r"[0-9]{0,9}", path.strip("/")):
        raise ValueError(f"must have a number as its database: {scheme}://host:6379/0")
    names = _check_options(query, _REDIS_OPTIONS | _TLS_OPTIONS if scheme == "rediss" else _REDIS_OPTIONS)
    if "ssl_keyfile" in names and "ssl_certfile" not in names:
        raise ValueError("must have the option ssl_certfile beside ssl_keyfile")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text, and not empty")
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must not contain control characters or line breaks")
    return value


def _check_path(path: str) -> None:
    # A scheme has two characters at least, so that C:\books.db stays a path.
    if _NOT_A_PATH.match(path) or re.match(r"[A-Za-z][\w+.-]+:", path):
        raise ValueError(
            'must be a path without ":" or a whole URL, such as postgresql://user:password@host/name'
        )
    if path.endswith(("/", "\\")):
        raise ValueError("must be the path of a file, not of a directory")


def _check_sqlite(rest: str) -> None:
    path, mark, _ = rest.partition("?")
    if path in ("", "/"):
        raise ValueError(
            "must name a file, such as sqlite:///books.db: in-memory databases cannot be shared by the "
            "reading and the writing connections"
        )
    if not path.startswith("/"):
        raise ValueError("must have three slashes before a relative path (sqlite:///books.db), four before /")
    _check_path(path[1:])
    if mark:
        raise ValueError(
            'must not have options behind "?": SQLite takes none here (a file with "?" in its name is given by '
            "its path, without sqlite:///)"
        )


def _check_postgresql(rest: str) -> None:
    _, tail = _check_server(rest)
    names = _check_options(tail.partition("?")[2], _POSTGRESQL_OPTIONS)
    if "ssl" in names and "sslmode" in names:
        raise ValueError("must not have both of the options ssl and sslmode, which mean the same")


def _check_options(query: str, known: Mapping[str, _Option]) -> list[str]:
    """Checks the options behind the ``?`` of a URL; returns their names."""
    given = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in given]
    # A password that was not escaped ends at its first "&", and the rest of it must not be shown.
    shown = not any("passw" in name for name in names)
    for name, value in given:
        option = known.get(name)
        if option is None:
            what = f"the option {name}" if shown and re.fullmatch(r"[a-z_]{1,40}", name) else "other options"
            raise ValueError(f"must not have {what}; {', '.join(known)} are the ones there are")
        if not re.fullmatch(option.pattern, value):
            raise ValueError(f"must have {option.label} in the option {name}")
        if names.count(name) > 1 and not option.repeats:
            raise ValueError(f"must have the option {name} once only")
    return names


def _check_server(rest: str) -> tuple[str, str]:
    """Checks ``user:password@host:port/…``; returns the host and the part behind the port."""
    authority, tail = _split(rest)
    if re.search(r"[\s#]|%(?![0-9A-Fa-f]{2})", rest) or "@" in tail or authority.count("@") > 1:
        raise ValueError(
            'must be a well-formed URL: in its user and password write "@" as %40, "/" as %2F, "?" as %3F, '
            '"#" as %23, "%" as %25 and a blank as %20'
        )
    found = _HOST_AND_PORT.fullmatch(authority.rpartition("@")[2])
    if not found or not 1 <= int(found[2] or 1) <= 65_535:
        raise ValueError(
            "must have the form scheme://user:password@host:port/name, with a number from 1 to 65535 as its "
            'port; in the password write ":" as %3A and "/" as %2F'
        )
    return found[1], tail


def _split(rest: str) -> tuple[str, str]:
    """Splits the part of a URL behind ``://`` into the authority and the rest."""
    end = re.search(r"[/?#]|$", rest)
    cut = end.start() if end else len(rest)
    return rest[:cut], rest[cut:]
