"""Every setting, and none besides, is in docs/reference/settings.md and has a typed field in ``Settings``."""

import re
from pathlib import Path

import msgspec
import pytest

from diptych.config.service import ConfigService
from diptych.config.setting import Setting
from diptych.config.settings import SETTINGS, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "settings.md").read_text("utf-8")


def documented() -> dict[str, list[str]]:
    rows = [line.strip("|\n ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_the_page_lists_the_settings_in_the_order_of_the_code():
    assert list(documented()) == [setting.name for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_row_of_a_setting_says_what_the_code_says(setting: Setting):
    kind, default, variable, meaning = documented()[setting.name]
    assert kind == setting.label
    assert default.strip("`") == setting.show(setting.default)
    assert variable.strip("`") == setting.variable
    assert meaning == setting.doc


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_documented_default_is_what_get_returns(setting: Setting):
    documented_default = documented()[setting.name][1].strip("`")
    config = ConfigService(environ={f"DIPTYCH_{setting.name}": documented_default})
    assert config.get(setting.name) == setting.default == ConfigService(environ={}).get(setting.name)


def test_every_variable_the_page_names_is_read():
    own = {"DIPTYCH_CONFIG", "DIPTYCH_MAIL_FROM"}
    named = set(re.findall(r"DIPTYCH_[A-Z0-9_]*[A-Z0-9]", PAGE)) - own
    assert named == {f"DIPTYCH_{setting.name}" for setting in SETTINGS}


def test_every_setting_has_its_field():
    assert list(Settings.__struct_fields__) == [setting.field for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_field_of_a_setting_is_its_name_and_value_in_lower_case_and_in_seconds(setting: Setting):
    config = ConfigService(environ={})
    value = getattr(config.settings, setting.field)
    if setting.name.endswith("_MS"):
        assert setting.field == setting.name[:-3].lower() + "_s"
        assert value * 1000 == config.get(setting.name)
    else:
        assert setting.field == setting.name.lower()
        assert value == config.get(setting.name)


@pytest.mark.parametrize("given", [None, 3])
def test_every_field_has_the_type_of_its_setting(given: int | None):
    redis_url = "redis://cache" if given else None
    config = ConfigService(
        environ={}, redis_url=redis_url, log_retention_days=given, log_personal_data_days=given
    )
    assert msgspec.convert(msgspec.structs.asdict(config.settings), Settings) == config.settings


def test_the_settings_hide_passwords():
    config = ConfigService(environ={}, database_url="postgresql://shop:s3cret@db/shop")
    assert config.settings.database_url == "postgresql://shop:s3cret@db/shop"
    assert "database_url='postgresql://shop:***@db/shop'" in repr(config.settings)
