"""The numbers of every stage are those of its version: `make_stages_golden.py` says how, and why."""

import json
from pathlib import Path
from typing import Any

import pytest
from stage_numbers import COMMAND, FILE, differences, measure

from vcppo.store.cache import VERSIONS

GOLDEN: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["stages"]
SAMPLES_ALONE = ("answers", "forecast-answers")  # which have no curves


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measure(tmp_path_factory.mktemp("stages"))


def judge(measured: dict[str, Any], golden: dict[str, Any], versions: dict[str, int]) -> str | None:
    """What has to be done, None if nothing has.

    The first stage decides: those after it are computed from its result.
    """
    for stage, version in versions.items():
        if stage not in golden or golden[stage]["version"] != version:
            return f"VERSIONS[{stage!r}] is {version}, and {FILE.name} was not made with it: remake it by {COMMAND}"
        found = differences(measured[stage], golden[stage])
        if found:
            return (
                f"stage {stage} computes otherwise than its version did ({'; '.join(found[:3])}): raise "
                f"VERSIONS[{stage!r}] in vcppo/store/cache.py, and remake {FILE.name} by {COMMAND}; where more is "
                f"measured and nothing else has changed, by {COMMAND} --more alone"
            )
    return None


def test_every_stage_has_the_numbers_of_its_version(measured: dict[str, Any]) -> None:
    todo = judge(measured, GOLDEN, VERSIONS)
    assert todo is None, todo


def test_every_stage_is_run_and_those_that_sample_say_what(measured: dict[str, Any]) -> None:
    assert measured.keys() == VERSIONS.keys() == GOLDEN.keys()
    sampling = {*SAMPLES_ALONE, "rl", "preference", "evaluation"}
    assert {stage for stage, found in GOLDEN.items() if found["sampled"]} == sampling
    assert all(found["curves"] for stage, found in GOLDEN.items() if stage not in SAMPLES_ALONE)


def test_a_version_that_was_raised_asks_for_the_file() -> None:
    versions = {**VERSIONS, "value-pretraining": VERSIONS["value-pretraining"] + 1}
    assert "remake it" in str(judge(GOLDEN, GOLDEN, versions))


@pytest.mark.parametrize("stage", [stage for stage in VERSIONS if stage not in SAMPLES_ALONE])
def test_a_number_that_changed_by_a_percent_asks_for_the_version(stage: str) -> None:
    changed = json.loads(json.dumps(GOLDEN))
    name, values = next((n, v) for n, v in changed[stage]["curves"].items() if v[0] and abs(v[0]) > 0.01)
    changed[stage]["curves"][name] = [values[0] * 1.01, *values[1:]]
    assert str(judge(changed, GOLDEN, VERSIONS)).startswith(f"stage {stage} computes otherwise than its version did")


def test_other_tokens_ask_for_the_version_and_rounding_does_not() -> None:
    changed = json.loads(json.dumps(GOLDEN))
    changed["answers"]["sampled"] = "other"
    assert "it samples other tokens" in str(judge(changed, GOLDEN, VERSIONS))
    rounded = json.loads(json.dumps(GOLDEN), parse_float=lambda text: float(text) * (1 + 1e-5))
    assert judge(rounded, GOLDEN, VERSIONS) is None


def test_the_file_says_how_it_was_made() -> None:
    assert Path(COMMAND.split()[1]).name == "make_stages_golden.py"
    assert json.loads(FILE.read_text(encoding="utf-8"))["command"] == COMMAND
