"""A record says all that others know of an estimator or a loss, and says it whole."""

import inspect
import subprocess
import sys
from typing import get_args

import pytest

from vcppo.maths import losses as maths
from vcppo.settings.advantage import AdvantageSettings, EstimatorName
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.loading import known_names
from vcppo.settings.losses import POLICY_LOSSES
from vcppo.settings.policy import PolicyLossName, PolicySettings


def test_settings_offer_the_estimators_and_losses_of_the_tables_and_no_other() -> None:
    assert get_args(EstimatorName) == tuple(ESTIMATORS)
    assert get_args(PolicyLossName) == tuple(POLICY_LOSSES)
    assert {*maths.POLICY_LOSSES, "dpo"} == set(POLICY_LOSSES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimators_record_is_whole(name: str) -> None:
    record = ESTIMATORS[name]
    assert record.title
    assert record.source
    assert list(inspect.signature(record.compute).parameters) == ["seen"]
    assert (record.verl is None) == bool(record.not_in_verl)
    assert set(record.settings) <= set(AdvantageSettings.model_fields)
    assert record.verl is not None or not record.verl_whitens
    assert record.uses_lambda or not record.length_adaptive


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_losss_record_is_whole(name: str) -> None:
    record = POLICY_LOSSES[name]
    assert record.title
    assert record.source
    assert callable(record.compute)
    assert (record.verl is None) == bool(record.not_in_verl)
    assert set(record.settings) <= set(PolicySettings.model_fields)
    assert {*record.ignores, *record.excludes} <= set(known_names())
    assert ("pairs" in record.reads) != ("advantages" in record.reads)


def test_the_tables_are_read_without_torch() -> None:
    code = "import sys; from vcppo.settings import estimators, losses, run; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
