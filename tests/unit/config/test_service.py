"""ConfigService: layers, types, faults, own settings, and hidden secrets."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.config.service import ConfigService
from diptych.config.settings import SETTINGS
from diptych.config.urls import mask
from diptych.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DIPTYCH_")]:
        monkeypatch.delenv(name)


def refused(*args, **values) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        ConfigService(*args, **{"environ": {}, **values})
    return caught.value


# Layers


def test_without_anything_every_setting_has_its_default():
    config = ConfigService()
    assert {s.name: config.get(s.name) for s in SETTINGS} == {s.name: s.default for s in SETTINGS}
    assert config.get("DATABASE_URL") == "sqlite:///diptych.db"
    assert config.get("REDIS_URL") is None
    assert config.get("REDIS_CRITICAL") is False
    assert repr(config) == "ConfigService()"


def test_each_layer_wins_over_the_one_below(tmp_path: Path):
    Path("diptych.toml").write_text("workers = 2\nrebuild_batch_size = 2\nDATABASE_POOL_SIZE = 2")
    environ = {"DIPTYCH_WORKERS": "3", "DIPTYCH_REBUILD_BATCH_SIZE": "3"}
    config = ConfigService(environ=environ, workers=4)
    layers = {setting.name: (shown, layer) for setting, shown, layer in config.describe()}
    assert layers["WORKERS"] == ("4", "argument")
    assert layers["REBUILD_BATCH_SIZE"] == ("3", "environment")
    assert layers["DATABASE_POOL_SIZE"] == ("2", "file diptych.toml")
    assert layers["SQL_QUERY_CONCURRENCY"] == ("8", "default")


def test_the_process_environment_is_the_default_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_WORKERS", " 3 ")
    assert ConfigService().get("WORKERS") == 3


def test_a_file_is_taken_from_the_argument_then_the_variable_then_the_directory(tmp_path: Path):
    for name, workers in (("diptych.toml", 2), ("named.toml", 3), ("given.toml", 4)):
        Path(name).write_text(f"workers = {workers}")
    environ = {"DIPTYCH_CONFIG": "named.toml"}
    assert ConfigService(environ={}).get("WORKERS") == 2
    assert ConfigService(environ=environ).get("WORKERS") == 3
    assert ConfigService(tmp_path / "given.toml", environ).get("WORKERS") == 4


def test_an_empty_variable_is_one_that_is_not_set():
    Path("diptych.toml").write_text('redis_url = "redis://cache"')
    config = ConfigService(environ={"DIPTYCH_REDIS_URL": "", "DIPTYCH_WORKERS": " ", "DIPTYCH_CONFIG": ""})
    assert config.get("REDIS_URL") == "redis://cache"
    assert config.get("WORKERS") == 1


@pytest.mark.parametrize(
    ("environ", "values"), [({"DIPTYCH_REDIS_URL": "none"}, {}), ({}, {"REDIS_URL": None})]
)
def test_none_unsets_what_a_lower_layer_set(environ: dict[str, str], values: dict[str, None]):
    Path("diptych.toml").write_text('redis_url = "redis://cache"')
    assert ConfigService(environ=environ, **values).get("REDIS_URL") is None


def test_get_takes_any_case_and_falls_back_to_the_default_given():
    config = ConfigService(environ={})
    assert config.get("workers") == 1
    assert config.get("REDIS_URL", "redis://localhost") == "redis://localhost"
    assert config.get("WORKERS", 9) == 1
    assert config.get("MAIL_FROM") is None
    assert config.get("MAIL_FROM", "me@example.org") == "me@example.org"


# Types


@pytest.mark.parametrize(
    ("key", "given_value", "expected"),
    [
        ("WORKERS", "8", 8),
        ("WORKERS", 8, 8),
        ("REDIS_CRITICAL", "TRUE", True),
        ("REDIS_CRITICAL", "yes", True),
        ("REDIS_CRITICAL", "on", True),
        ("REDIS_CRITICAL", 1, True),
        ("REDIS_CRITICAL", "0", False),
        ("REDIS_CRITICAL", "No", False),
        ("REDIS_CRITICAL", "off", False),
        ("SQLITE_SYNCHRONOUS", "normal", "NORMAL"),
        ("LOG_RETENTION_DAYS", "none", None),
        ("LOG_RETENTION_DAYS", "30", 30),
        ("REDIS_NAMESPACE", "shop-1.x_y", "shop-1.x_y"),
        (
            "ALLOWED_HOSTS",
            "127.0.0.1,[::1], fe80::a:80, *.Shop.example.",
            ("127.0.0.1", "::1", "fe80::a:80", "*.shop.example"),
        ),
        ("DATABASE_URL", "my_database.db", "my_database.db"),
        ("DATABASE_URL", Path("data/books.db"), "data/books.db"),
        ("DATABASE_URL", "/var/lib/a b/books@home.db", "/var/lib/a b/books@home.db"),
        ("DATABASE_URL", r"C:\books.db", r"C:\books.db"),
        *[
            ("DATABASE_URL", url, url)
            for url in (
                "sqlite:///books.db",
                "sqlite:////var/lib/books.db",
                "sqlite+aiosqlite:///books.db",
                "postgresql://db/shop",
                "postgres://shop@db:5432/shop",
                "postgresql+asyncpg://shop:p%40ss@[::1]:5432/shop?ssl=require",
                "postgresql:///shop?host=/run/postgresql",
                "postgresql://db/shop?sslmode=verify-full&application_name=shop&passfile=/run/pgpass",
                "postgresql://u@/shop?host=one:5432&host=two:5432&target_session_attrs=read-write",
            )
        ],
        *[
            ("REDIS_URL", url, url)
            for url in (
                "redis://cache",
                "redis://:pw@cache:6379/2",
                "rediss://app:pw@cache:6380?db=3",
                "redis://[::1]:6379/0",
                "redis://cache/1?username=app&password=p%26w&client_name=shop",
                "rediss://cache?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_password=pw",
                "rediss://cache?ssl_ca_path=/ca&ssl_cert_reqs=optional&ssl_check_hostname=false",
                "unix:///run/redis.sock?db=1",
                "unix://app:pw@/run/redis.sock",
            )
        ],
    ],
)
def test_a_valid_value_is_returned_in_its_type(key: str, given_value: object, expected: object):
    values: dict[str, Any] = {"redis_url": "redis://cache", key.lower(): given_value}
    config = ConfigService(environ={}, **values)
    assert config.get(key) == expected
    assert type(config.get(key)) is type(expected)


FAULTS: list[tuple[str, object, str]] = [
    ("WORKERS", "many", "a whole number from 1 to 1000"),
    ("WORKERS", "0", "a whole number from 1 to 1000"),
    ("WORKERS", 1001, "a whole number from 1 to 1000"),
    ("WORKERS", 1.5, "a whole number"),
    ("WORKERS", True, "a whole number"),
    ("WORKERS", None, "a whole number"),
    ("WORKERS", {"a": 1}, "a whole number"),
    ("LOG_RETENTION_DAYS", "-1", "a whole number from 1"),
    ("REDIS_CRITICAL", "maybe", "true or false"),
    ("REDIS_CRITICAL", 2, "true or false"),
    ("REDIS_CRITICAL", 1.0, "true or false"),
    ("SQLITE_SYNCHRONOUS", "OFF", "one of FULL, NORMAL, EXTRA"),
    ("SQLITE_SYNCHRONOUS", 2, "one of FULL, NORMAL, EXTRA"),
    ("REDIS_NAMESPACE", "a:b", "letters"),
    ("REDIS_NAMESPACE", "x" * 65, "1 to 64"),
    ("REDIS_NAMESPACE", "böcker", "letters"),
    ("DATABASE_URL", "", "not empty"),
    ("DATABASE_URL", 5, "text"),
    ("DATABASE_URL", "books\n.db", "control characters"),
    ("DATABASE_URL", "sqlite://", "in-memory"),
    ("DATABASE_URL", "sqlite:///", "in-memory"),
    ("DATABASE_URL", ":memory:", "in-memory"),
    ("DATABASE_URL", "sqlite:///:memory:", "in-memory"),
    ("DATABASE_URL", "sqlite:///file:x?mode=memory&uri=true", "in-memory"),
    ("DATABASE_URL", "sqlite://books.db", "three slashes"),
    ("DATABASE_URL", "sqlite:books.db", "a whole URL"),
    ("DATABASE_URL", "data/", "not of a directory"),
    ("DATABASE_URL", "mysql://u:p@h/d", "postgresql://"),
    ("DATABASE_URL", "postgresql+psycopg://h/d", "postgresql+asyncpg://"),
    ("DATABASE_URL", "u:p@h/d", "a whole URL"),
    ("DATABASE_URL", "host=db password=x", "a whole URL"),
    ("DATABASE_URL", "postgresql://u:p@h:port/d", "a number from 1 to 65535"),
    ("DATABASE_URL", "postgresql://u:p@h:0/d", "a number from 1 to 65535"),
    ("DATABASE_URL", "postgresql://u:p@h:70000/d", "a number from 1 to 65535"),
    ("DATABASE_URL", "postgresql://u:p@ss@h/d", "%40"),
    ("DATABASE_URL", "postgresql://u:p/ss@h/d", "%2F"),
    ("DATABASE_URL", "postgresql://u:p#ss@h/d", "%23"),
    ("DATABASE_URL", "postgresql://u:p?ss@h/d", "%3F"),
    ("DATABASE_URL", "postgresql://u:100%@h/d", "%25"),
    ("DATABASE_URL", "postgresql://u:p w@h/d", "%20"),
    ("DATABASE_URL", "postgresql://[::1/d", "form scheme://"),
    ("REDIS_URL", "cache:6379", "redis://"),
    ("REDIS_URL", "http://cache", "redis://"),
    ("REDIS_URL", "redis://", "a host"),
    ("REDIS_URL", "redis://cache:x", "a number from 1"),
    ("REDIS_URL", "redis://cache/first", "a number as its database"),
    ("REDIS_URL", "redis://cache?db=x", "a number as its database"),
    ("REDIS_URL", "unix://", "name the socket"),
    ("REDIS_URL", "redis://cache?socket_timeout=9", "the option socket_timeout; client_name, db, password"),
    ("REDIS_URL", "redis://cache?socket_timeout=abc", "the option socket_timeout"),
    ("REDIS_URL", "redis://cache?bogus=1", "the option bogus"),
    ("REDIS_URL", "redis://cache?Bogus=1", "other options; client_name"),
    ("REDIS_URL", "redis://cache?decode_responses=True", "the option decode_responses"),
    ("REDIS_URL", "redis://cache?max_connections=2", "the option max_connections"),
    ("REDIS_URL", "unix:///run/redis.sock?protocol=3", "the option protocol"),
    ("REDIS_URL", "redis://cache?ssl_ca_certs=/ca.pem", "the option ssl_ca_certs"),
    ("REDIS_URL", "rediss://cache?ssl_cert_reqs=maybe", "one of none, optional, required"),
    ("REDIS_URL", "rediss://cache?ssl_check_hostname=off", "one of true, false"),
    ("REDIS_URL", "rediss://cache?ssl_keyfile=/k.pem", "the option ssl_certfile beside ssl_keyfile"),
    ("REDIS_URL", "redis://cache?client_name=a%20b", "text without blanks in the option client_name"),
    ("REDIS_URL", "redis://cache?username=", "text in the option username"),
    ("REDIS_URL", "redis://cache?db=1&db=2", "the option db once only"),
    (
        "DATABASE_URL",
        "postgresql://db/shop?sslmode=bogus",
        "one of disable, allow, prefer, require, verify-ca",
    ),
    ("DATABASE_URL", "postgresql://db/shop?ssl=bogus", "in the option ssl"),
    ("DATABASE_URL", "postgresql://db/shop?ssl=require&sslmode=require", "both of the options"),
    ("DATABASE_URL", "postgresql://db/shop?target_session_attrs=standby", "one of any, primary, read-write"),
    ("DATABASE_URL", "postgresql://db/shop?port=x", "a number in the option port"),
    ("DATABASE_URL", "postgresql://db/shop?sslcrl=/x", "the option sslcrl; application_name, host"),
    ("DATABASE_URL", "sqlite:///books.db?mode=ro", 'options behind "?"'),
    ("MAX_BODY_BYTES", 0, "a whole number from 1"),
    *(
        ("ALLOWED_HOSTS", value, "names of hosts without ports")
        for value in (
            "a:80",
            "127.0.0.1:8000",
            "cafe:1",
            "shop.example,d.e:1",
            "::1::",
            "[::1]:80",
            "1.2.3.4/8",
        )
    ),
]


def origins(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Returns the layers in which ``value`` can be written, each with its name in errors."""
    yield "argument", f"argument {key}"
    if isinstance(value, str) and value:
        yield "environment", f"environment variable DIPTYCH_{key}"
        if "\n" not in value:
            yield "file", f"{key} in the file my.toml"


@pytest.mark.parametrize(
    ("layer", "origin", "key", "value", "expectation"),
    [(*origin, *fault) for fault in FAULTS for origin in origins(*fault[:2])],
)
def test_a_faulty_value_is_refused_with_its_key_and_origin(
    layer: str, origin: str, key: str, value: object, expectation: str
):
    if layer == "argument":
        error = refused(**{key: value})
    elif layer == "environment":
        error = refused(environ={f"DIPTYCH_{key}": value})
    else:
        Path("my.toml").write_text(f"{key.lower()} = '{value}'")
        error = refused("my.toml")
    assert error.key == key
    assert str(error).startswith(f"{key}: must ")
    assert expectation in str(error)
    assert origin in str(error)


def test_a_faulty_value_is_refused_though_a_higher_layer_overrides_it():
    assert refused(environ={"DIPTYCH_WORKERS": "many"}, workers=2).key == "WORKERS"


def test_every_fault_is_reported_at_once():
    Path("diptych.toml").write_text("redis_critical = 'perhaps'")
    error = refused(environ={"DIPTYCH_WORKERS": "many"}, database_url="mysql://h/d", REDIS_URI="redis://h")
    assert error.key == "REDIS_CRITICAL"
    lines = str(error).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "REDIS_CRITICAL",
        "WORKERS",
        "DATABASE_URL",
        "REDIS_URI",
    ]


def test_critical_redis_without_a_redis_is_a_contradiction():
    assert "no REDIS_URL" in str(refused(REDIS_CRITICAL=True))


# Files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read the file my.toml"),
        (b"workers = ", "not valid TOML"),
        (b"workers = '\xff'", "not UTF-8"),
        (b"workers = 1\nWORKERS = 2", "twice"),
        (b"[diptych]\nworkers = 2", "outside any table"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_faulty_file_is_named(content: bytes | None, problem: str, by_variable: bool):
    if content is not None:
        Path("my.toml").write_bytes(content)
    error = refused(environ={"DIPTYCH_CONFIG": "my.toml"}) if by_variable else refused("my.toml")
    assert problem in str(error)
    assert "my.toml" in str(error)


def test_a_directory_is_no_file(tmp_path: Path):
    assert refused(tmp_path).key == "CONFIG"


# The application's own settings


def test_what_diptych_does_not_know_is_kept_as_given():
    Path("diptych.toml").write_text("page_size = 20\n[mail]\nhost = 'mx'")
    config = ConfigService(environ={"DIPTYCH_GREETING": "5"}, archive_database_url="x", clock=len)
    assert config.get("PAGE_SIZE") == 20
    assert config.get("MAIL") == {"host": "mx"}
    assert config.get("GREETING") == "5"
    assert config.get("ARCHIVE_DATABASE_URL") == "x"
    assert config.get("CLOCK") is len


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE-URL", "DATABASE_URL"),
        ("REDIS_URI", "REDIS_URL"),
        ("WORKER", "WORKERS"),
        ("DIPTYCH_WORKERS", "WORKERS"),
    ],
)
def test_a_slip_of_the_pen_is_not_taken_for_an_own_setting(slip: str, meant: str):
    assert f"did you mean {meant}?" in str(refused(**{slip: "1"}))
    assert f"did you mean {meant}?" in str(refused(environ={f"DIPTYCH_{slip}": "1"}))
    with pytest.raises(ConfigurationError, match=meant):
        ConfigService(environ={}).get(slip)


def test_own_secrets_are_hidden_and_other_own_values_shown():
    config = ConfigService(
        environ={"DIPTYCH_API_KEY": "s3cret", "DIPTYCH_SENTRY": "https://s3cret@sentry.example/1"},
        mail={"password": "s3cret", "host": "mx", "urls": ["amqp://u:s3cret@mq"]},
        smtp_password="s3cret",
        Session_Token=["s3cret"],
        client_secret={"a": "s3cret"},
    )
    assert "s3cret" not in repr(config) + str(config.describe())
    assert "host: mx" in repr(config)
    assert config.get("API_KEY") == "s3cret"


# Secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("my_database.db", "my_database.db"),
        ("sqlite:////home/me@work/books.db", "sqlite:////home/me@work/books.db"),
        ("postgresql://shop@db/shop", "postgresql://shop@db/shop"),
        ("postgresql://shop:pw@db:5432/shop", "postgresql://shop:***@db:5432/shop"),
        ("postgresql://db/shop?user=a&password=pw&ssl=1", "postgresql://db/shop?user=a&password=***&ssl=1"),
        ("postgresql://db/shop?sslpassword=pw", "postgresql://db/shop?sslpassword=***"),
        ("postgresql://db/shop?pass%77ord=pw", "postgresql://db/shop?pass%77ord=***"),
        ("redis://:pw@cache/0", "redis://:***@cache/0"),
        ("https://token@example.org/x", "https://***@example.org/x"),
        ("postgresql://u:p/pw@db/shop", "postgresql://***"),
        ("postgresql://u@pw@db/shop", "postgresql://***@db/shop"),
        ("u:pw@db/shop", "***"),
        ("u:pw/@db/shop", "***"),
        ("u:pw@db/shop://", "***"),
        ("sqlite://u:pw#@db/shop", "sqlite://***"),
    ],
)
def test_mask_hides_the_password_and_nothing_else(url: str, shown: str):
    assert mask(url) == shown


def test_repr_shows_what_differs_from_the_defaults():
    config = ConfigService(environ={}, WORKERS=4, DATABASE_URL="postgresql://shop:pw@db/shop")
    assert repr(config) == "ConfigService(DATABASE_URL='postgresql://shop:***@db/shop', WORKERS='4')"
    assert config.get("DATABASE_URL") == "postgresql://shop:pw@db/shop"


SECRET = "Hunter2XYZ"
noise = st.text(alphabet="ab1%@:/?#&=[] .~é\n", max_size=4)
urls = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(
        ["postgresql://u:", "redis://:", "rediss://u:", "unix://u:", "sqlite://u:", "u:", "mysql://u:"]
    ),
    noise,
    st.just(SECRET),
    noise,
    st.sampled_from(["@host/1", "@host:5432/db?password=" + SECRET, "@/tmp/x.sock", "@host:x/", "@"]),
    noise,
)


@settings(max_examples=500)
@given(
    url=urls,
    key=st.sampled_from(
        ["DATABASE_URL", "REDIS_URL", "WORKERS", "REDIS_CRITICAL", "SQLITE_SYNCHRONOUS", "OWN"]
    ),
    layer=st.sampled_from(["environment", "argument"]),
)
def test_no_password_appears_in_an_error_or_a_repr(url: str, key: str, layer: str):
    environ = {f"DIPTYCH_{key}": url} if layer == "environment" else {}
    try:
        config = ConfigService(environ=environ, **({key: url} if layer == "argument" else {}))
        shown = repr(config) + str([row[1:] for row in config.describe()])
    except ConfigurationError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error) + error.problem
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?password=ab&hunter=1",
        "redis://h?HUNTER=1",
        "redis://h?bogus=hunter",
        "rediss://h?db=hunter",
    ],
)
def test_an_error_about_an_option_shows_no_part_of_a_password(url: str):
    assert "hunter" not in str(refused(redis_url=url)).lower()


@given(st.text())
def test_mask_takes_any_text(text: str):
    assert isinstance(mask(text), str)
    assert SECRET not in mask(f"postgresql://u:{SECRET}@{text}")
