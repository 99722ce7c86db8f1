"""The model, the fault run and the scripted cases name each fault alike, and none is only named."""

from __future__ import annotations

from tests.acceptance.faults.stories import FAULTS
from tests.faults import MODEL_ALONE, Fault
from tests.model.config import Config
from tests.model.rules import RULES


def test_every_fault_is_made_by_the_fault_run_or_is_the_models_alone():
    assert {*FAULTS, Fault.TWO_VERSIONS, *MODEL_ALONE} == set(Fault)
    assert MODEL_ALONE.isdisjoint(FAULTS)


def test_every_fault_of_the_model_alone_is_explored_by_it():
    explored = set(Config().kinds).union(*(rule.config.kinds for rule in RULES.values()))
    assert explored >= MODEL_ALONE
    assert explored <= set(Fault)
