"""Random walks of the model of leases, which go through everything at once."""

import pytest

from tests.model.config import Config, first_state
from tests.model.explore import walk
from tests.model.machine import machine
from tests.model.rules import WALKED
from tests.model.settle import settles

WALKS = 400


@pytest.mark.parametrize("derived", [False, True])
def test_random_walks_find_nothing_and_settle(derived):
    """When all faults are over, Redis serves what SQL holds and no command is left waiting."""
    config = WALKED._replace(derived=derived)
    for seed in range(WALKS):
        last, explored = walk(machine(config), seed)
        assert explored.violation is None, f"seed {seed}\n{explored.violation}"
        assert settles(last, config), f"seed {seed} does not settle"


def test_what_cannot_settle_is_noticed():
    """An emptied Redis is built again once the lease has run out, and not before."""
    emptied = first_state(Config(empty=True))
    assert settles(emptied, WALKED)
    for_ever = emptied.sql._replace(fence=emptied.sql.fence._replace(lease=1000))
    assert not settles(emptied._replace(sql=for_ever), WALKED)
