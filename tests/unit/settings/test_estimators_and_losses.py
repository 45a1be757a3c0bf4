"""A record says all that others know of an estimator or a loss, and says it whole."""

import inspect
import subprocess
import sys

import pytest

from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.kinds import KINDS, Kinds
from vcppo.settings.loading import known_names
from vcppo.settings.losses import POLICY_LOSSES


def owned(kinds: Kinds, word: str) -> set[str]:
    """The settings of a kind that not all of its section's have."""
    common = set.intersection(*(set(model.model_fields) for model in kinds.models.values()))
    return set(kinds.models[word].model_fields) - common


def test_settings_offer_the_estimators_and_losses_of_the_tables_and_no_other() -> None:
    assert set(KINDS["advantage"].models) == set(ESTIMATORS)
    assert set(KINDS["policy"].models) == set(POLICY_LOSSES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimators_record_is_whole(name: str) -> None:
    record = ESTIMATORS[name]
    assert record.title
    assert record.source
    assert len(inspect.signature(record.compute).parameters) == 1
    assert (record.verl is None) == bool(record.not_in_verl)
    assert owned(KINDS["advantage"], name) == set(record.settings)
    assert record.verl is not None or not record.verl_whitens
    assert record.uses_lambda or not record.length_adaptive


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_losss_record_is_whole(name: str) -> None:
    record = POLICY_LOSSES[name]
    assert record.title
    assert record.source
    assert callable(record.compute)
    assert (record.verl is None) == bool(record.not_in_verl)
    assert owned(KINDS["policy"], name) == set(record.settings)
    assert {*record.ignores, *record.excludes} <= set(known_names())
    assert ("pairs" in record.reads) != ("advantages" in record.reads)


def test_the_tables_are_read_without_torch() -> None:
    code = "import sys; from vcppo.settings import estimators, losses, run; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
