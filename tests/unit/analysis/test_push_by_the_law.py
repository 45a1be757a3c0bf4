"""The push that the law computes for a run's bias, beside the measured one, on runs that are made up."""

import math

import pandas as pd
import pytest

from vcppo.analysis import tables
from vcppo.analysis.data import Study
from vcppo.analysis.starts import computed_push, fitted_chain
from vcppo.maths.collapse_law import Chain, constant_gain, true_push

CHAINS = {0.0: Chain(30, 0.09), 1.0: Chain(30, 0.05, right=0.8)}  # one a base
BIASES = {"low": -2.0, "right": 0.0}


def study_of(problems: tuple[str, ...] = ("30/123", "29/007", "31/456"), *, swept: bool = True) -> Study:
    runs, curves, asked, empty = [], [], [], pd.DataFrame({"arm": [], "seed": []})
    for base, chain in CHAINS.items():
        for arm, bias in BIASES.items():
            key = {"arm": arm, "base_seed": base, "seed": 0.0}
            runs.append(
                {**key, "study": "made-up", "status": "done", "avg_at_k": 0.9, "pass_at_k": 1.0, "k": 2, "problems": 3,
                 "commit": "abc", "min_length_fraction": 0.5, "min_accuracy": 0.1}
                | ({"gae.lambda_actor": 0.95} if swept else {})
            )  # fmt: skip
            logged = {
                "rollout/length_tokens": chain.mean_tokens,
                "rollout/accuracy": chain.accuracy,
                "value/value_bias": bias,
                "policy/push": 0.5,
            }
            curves += [{**key, "metric": name, "step": 0.0, "value": value} for name, value in logged.items()]
            asked += [{**key, "problem": name, "samples": 2, "correct": 2} for name in problems]
    return Study("made-up", pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, pd.DataFrame(asked))


def test_the_chain_is_the_one_that_a_bases_first_responses_show() -> None:
    for chain in CHAINS.values():
        made = fitted_chain(30, 3, chain.mean_tokens, chain.accuracy)
        assert made is not None
        assert (made.hazard, made.right) == pytest.approx((chain.hazard, chain.right), abs=1e-6)
    assert fitted_chain(30, 3, 5.0, 0.1) is None  # shorter than one line
    assert fitted_chain(30, 3, 126.0, 0.1) is None  # longer than all
    assert fitted_chain(30, 3, 45.0, 0.0) is None


def test_the_push_of_a_bias_is_the_truths_and_the_constants() -> None:
    pushes = computed_push(study_of())
    assert len(pushes) == 4
    for base, chain in CHAINS.items():
        assert pushes["right", base, 0.0] == pytest.approx(true_push(chain), abs=1e-6)
        lower = true_push(chain) + 2.0 * constant_gain(chain, 0.95)
        assert pushes["low", base, 0.0] == pytest.approx(lower, abs=1e-6)


def test_the_table_of_outcomes_has_it_where_it_can_be_computed() -> None:
    table = tables.components(study_of())
    mean = sum(true_push(chain) for chain in CHAINS.values()) / 2
    assert table.numbers.set_index("arm")["law"]["right"] == pytest.approx(mean, abs=1e-6)
    assert "push by the law at that bias" in table.shown
    for other in (study_of(("48+88+59",)), study_of(swept=False)):
        assert "push by the law at that bias" not in tables.components(other).shown
        assert math.isnan(tables.components(other).numbers["law"].iloc[0])
