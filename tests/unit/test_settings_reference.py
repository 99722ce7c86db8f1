"""docs/reference/settings.md lists every setting as the code has it, and none that the code does not have."""

import re
from pathlib import Path

import pytest

from diptych.config.service import SETTINGS, ConfigService, Setting

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text("utf-8")


def documented() -> dict[str, list[str]]:
    rows = [line.strip("|\n ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_the_page_lists_the_settings_in_the_order_of_the_code():
    assert list(documented()) == [setting.name for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_row_of_a_setting_says_what_the_code_says(setting: Setting):
    kind, default, variable, meaning = documented()[setting.name]
    assert kind.startswith(setting.kind.label)
    assert kind.endswith("or none") == (setting.default is None)
    assert default.strip("`") == setting.show(setting.default)
    assert variable.strip("`") == f"DIPTYCH_{setting.name}"
    assert meaning == setting.doc


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_documented_default_is_what_get_returns(setting: Setting):
    documented_default = documented()[setting.name][1].strip("`")
    config = ConfigService(environ={setting.variable: documented_default})
    assert config.get(setting.name) == setting.default == ConfigService(environ={}).get(setting.name)


def test_every_variable_the_page_names_is_read():
    own = {"DIPTYCH_CONFIG", "DIPTYCH_MAIL_FROM"}
    named = set(re.findall(r"DIPTYCH_[A-Z_]*[A-Z]", PAGE)) - own
    assert named == {setting.variable for setting in SETTINGS}
