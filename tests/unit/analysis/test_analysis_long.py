"""analysis/long.py: what λ^2000 does to each arm, on made-up numbers."""

import doctest
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vcppo.analysis import long
from vcppo.analysis.data import NoDataError, read_results
from vcppo.analysis.redraw import main

KEY = {"study": "components-long", "origin": "measured", "commit": "0123456789ab", "error": "", "k": 4, "problems": 2}
ARMS = {  # estimator, lambda_actor, lambda_critic, lengths by iteration
    "ppo": ("gae", 0.95, 0.95, [600, 10, 10, 10, 10, 10, 10]),
    "vcppo": ("gae", 0.95, 1.0, [600, 1000, 2001, 2001, 2001, 2001, 2001]),
    "vcppo-no-decouple-1.0": ("gae", 1.0, 1.0, [600, 1900, 2001, 2001, 2001, 2001, 2001]),
    "grpo": ("grpo", 0.95, 1.0, [600, 1900, 2001, 2001, 2001, 2001, 2001]),
}


def write(root: Path, *, seeds: Sequence[int] = (0, 1), lengths: bool = True) -> Path:
    runs, curves = [], []
    for arm, (estimator, actor, critic, tokens) in ARMS.items():
        for seed in seeds:
            scores = dict.fromkeys(("avg_at_k", "pass_at_k", "final_length_tokens", "start_length_tokens",
                                    "min_length_fraction", "min_accuracy", "final_accuracy"), 0.5)  # fmt: skip
            settings = {"advantage.estimator": estimator, "gae.lambda_actor": actor, "gae.lambda_critic": critic}
            one = {**KEY, "arm": arm, "seed": seed, "cell": f"{arm}-s{seed}", "status": "done"}
            runs.append({**one, **settings, **scores})
            for step, length in enumerate(tokens):
                values: dict[str, float] = {"rollout/accuracy": 0.1 * step}
                if lengths:
                    values["rollout/length_tokens"] = length + 20 * seed
                if estimator == "gae":
                    values["advantage/real_reward_share"] = 0.01
                curves += [{**one, "step": step, "metric": name, "value": value} for name, value in values.items()]
    folder = root / "components-long"
    folder.mkdir(parents=True)
    pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)
    pd.DataFrame(curves).to_csv(folder / "curves.csv", index=False)
    return root


@pytest.fixture
def computed(tmp_path: Path) -> Any:
    study = read_results(write(tmp_path)).studies["components-long"]
    return long.compute(study.runs, study.curves).set_index(["arm", "when"])


def test_the_weight_at_the_first_token_is_lambda_to_the_number_of_tokens_after_it() -> None:
    assert 10 ** long.first_weight(0.9, 3) == pytest.approx(0.81)
    assert long.first_weight(0.95, 2006) == pytest.approx(2005 * math.log10(0.95))
    assert long.first_weight(0.95, 2006) < -44


def test_each_arm_is_taken_at_its_own_length_and_lambdas(computed: Any) -> None:
    end = computed.xs("end", level="when")
    assert end["tokens"].to_dict() == {"ppo": 20, "vcppo": 2011, "vcppo-no-decouple-1.0": 2011, "grpo": 2011}
    assert end.loc["vcppo", "actor"] == pytest.approx(2010 * math.log10(0.95))
    assert end.loc["vcppo", "critic"] == 0
    assert end.loc["ppo", "critic"] == end.loc["ppo", "actor"] == pytest.approx(19 * math.log10(0.95))
    assert end.loc["vcppo-no-decouple-1.0", "actor"] == 0
    assert end.loc["vcppo", "share"] == pytest.approx(1.0)
    assert end.loc["vcppo", "accuracy"] == pytest.approx(40.0), "the mean of iterations 2 to 6"


def test_without_a_critic_the_response_hears_its_reward_whole(computed: Any) -> None:
    assert computed.loc[("grpo", "end"), "actor"] == 0
    assert math.isnan(computed.loc[("grpo", "end"), "critic"])


def test_the_start_is_iteration_0(computed: Any) -> None:
    assert (computed.xs("start", level="when")["tokens"] == 610).all()
    assert (computed.xs("start", level="when")["accuracy"] == 0).all()


def test_it_is_drawn_where_the_study_is_and_says_what_it_shows(tmp_path: Path) -> None:
    assert main(["--results", str(write(tmp_path)), "--quiet"]) == 0
    assert (tmp_path / "figures" / "long.pdf").exists()
    captions = (tmp_path / "figures" / "captions.md").read_text(encoding="utf-8")
    assert "VC-PPO ends with answers of 2011 tokens on average" in captions
    assert "10^-44.8" in captions
    assert "n = 2 seeds an arm" in captions


def test_it_is_left_out_with_a_word_where_the_study_is_not(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match=r"long: no .*components-long; make it with: vcppo sweep components-long"):
        long.make(read_results(tmp_path))


def test_it_is_left_out_where_no_lengths_were_logged(tmp_path: Path) -> None:
    path = write(tmp_path, lengths=False) / "components-long" / "curves.csv"
    curves = pd.read_csv(path)
    curves[curves["metric"] == "advantage/real_reward_share"].to_csv(path, index=False)
    results = read_results(tmp_path)
    with pytest.raises(NoDataError, match="no lengths in"):
        long.make(results)


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(long).failed == 0
