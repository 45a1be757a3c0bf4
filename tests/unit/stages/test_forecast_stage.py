"""A run is forecast before its first step: by the measures of `diagnose`, and without a trace in what follows."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import new_policy, random_batch, tiny

from vcppo.diagnosis.alignment import measure_alignments, surrogate_alignments
from vcppo.diagnosis.gradient_passes import GradientSettings
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import Alignment, Estimate
from vcppo.errors import ConfigError
from vcppo.maths.advantages import gae, monte_carlo_returns
from vcppo.models.checkpoints import save_model
from vcppo.rl.forecast import critic_forecast, gradient_forecast
from vcppo.rl.models import Models
from vcppo.rl.rewards import place_scores
from vcppo.settings.run import RunSettings
from vcppo.stages.context import StageContext
from vcppo.stages.forecast import forecast, forecast_prompts, forecast_responses, load_rollouts
from vcppo.stages.rl import rl
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.store.summary import curves_of
from vcppo.tasks import make_task

CRITIC = ("critic.init=policy", "critic.initial_value=-0.5", "pretrain.steps=0")
GRPO = ("advantage.estimator=grpo", "rollout.prompts=3", "rollout.samples_per_prompt=4")
ASKED = "record.forecast_responses=48"


def contexts(out: Path, *assignments: str) -> dict[str, StageContext]:
    """Every stage of these settings, over a random policy that no cold start has to make."""
    settings = tiny("evaluation.every=0", "steps=2", *assignments)
    found = addresses(settings)
    folders = {name: StageFolder(out, address) for name, address in found.items()}
    save_model(new_policy(), make_task(settings.task).tokenizer(), folders["cold-start"].path / "policy")
    for folder in folders.values():
        folder.path.mkdir(parents=True, exist_ok=True)
    return {name: StageContext(settings, folder, folders) for name, folder in folders.items()}


def forecast_of(out: Path, *assignments: str) -> dict[str, float]:
    made = contexts(out, ASKED, *assignments)
    forecast_responses(made["forecast-answers"])
    forecast(made["forecast"])
    curves = curves_of(read_journal(made["forecast"].folder.path / "journal.jsonl"))
    return {name: by_step[0] for name, by_step in curves.items()}


def keys(*assignments: str) -> dict[str, str]:
    return {stage: address.key for stage, address in addresses(tiny(*assignments)).items()}


def test_without_it_there_are_no_such_stages_and_with_it_no_other_stage_has_another_address() -> None:
    plain, asked = keys(*CRITIC), keys(*CRITIC, ASKED)
    assert asked.keys() - plain.keys() == {"forecast-answers", "forecast"}
    assert {name: asked[name] for name in plain} == plain
    assert list(asked) == ["cold-start", "forecast-answers", "forecast", "rl", "evaluation"]


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ("gae.lambda_actor=0.5", {"forecast"}),
        ("critic.initial_value=-1", {"forecast"}),
        ("seed=1", {"forecast"}),
        ("rollout.prompts=14", {"forecast"}),  # a batch of another size has another gain
        ("record.forecast_responses=64", {"forecast", "forecast-answers"}),
        ("rollout.temperature=0.9", {"forecast", "forecast-answers"}),
        ("base_seed=1", {"forecast", "forecast-answers"}),
        ("gae.lambda_critic=0.5", set()),
        ("steps=9", set()),
        ("policy.learning_rate=0.1", set()),
    ],
)
def test_responses_are_shared_by_the_runs_of_a_base_and_a_forecast_knows_what_it_depends_on(
    said: str, changed: set[str]
) -> None:
    before, after = keys(*CRITIC, ASKED), keys(*CRITIC, ASKED, said)
    assert {name for name in ("forecast", "forecast-answers") if before[name] != after[name]} == changed


def test_training_is_the_same_to_the_bit_with_a_forecast_and_without(tmp_path: Path) -> None:
    forecast_of(tmp_path / "asked", *CRITIC)
    weights = []
    for name, more in (("asked", [ASKED]), ("plain", [])):
        context = contexts(tmp_path / name, *CRITIC, *more)["rl"]
        rl(context)
        weights.append(load_file(next((context.folder.path / "policy").glob("*.safetensors"))))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_critic_below_the_returns_is_seen_and_the_same_is_said_each_time(tmp_path: Path) -> None:
    first, again = (forecast_of(tmp_path / name, *CRITIC) for name in ("first", "again"))
    assert first["forecast/responses"] == 48
    mean = 2 * first["forecast/accuracy"] - 1  # of scores -1 and 1
    assert first["forecast/value_bias"] == pytest.approx(-0.5 - mean, abs=0.2)  # a fresh head scatters about -0.5
    assert 0 < first["forecast/end_error"] < 2
    del first["time/forecast_s"], again["time/forecast_s"]
    assert first == pytest.approx(again, rel=0, abs=0, nan_ok=True)


def test_a_method_without_a_critic_is_forecast_by_its_gradient_in_whole_groups(tmp_path: Path) -> None:
    metrics = forecast_of(tmp_path, *GRPO)
    assert metrics["forecast/responses"] == 48
    assert not {"forecast/value_bias", "forecast/explained_variance"} & metrics.keys()
    made = contexts(tmp_path, ASKED, *GRPO)["forecast"]
    prompts = forecast_prompts(made)
    assert all(len(set(prompts[at : at + 4])) == 1 for at in range(0, 48, 4))
    rollouts = load_rollouts(made, made.sampler(made.load_first_policy()))
    assert [rollout.prompt for rollout in rollouts] == prompts
    assert all(len(rollout.generation.logprobs) == len(rollout.generation.tokens) for rollout in rollouts)


def test_pairs_have_no_advantages_so_a_forecast_of_them_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"record\.forecast_responses.*has no advantages"):
        tiny("method=dpo", ASKED)


def close(metrics: dict[str, float], name: str, said: Estimate | None) -> None:
    """The number and its interval are those that a report has, null for NaN."""
    assert said is not None
    for ending, wanted in (("", said.value), ("_low", said.low), ("_high", said.high)):
        got = metrics[f"forecast/{name}{ending}"]
        if wanted is None:
            assert math.isnan(got)
        else:
            assert got == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_the_numbers_are_those_of_diagnose_of_the_same_responses_critic_and_lambda() -> None:
    settings: RunSettings = tiny("rollout.prompts=12", "micro_batch_tokens=2000")
    made = random_batch([3, 4, 5, 6] * 24, seed=5, vocabulary=3)
    small = (made.response_tokens == 1).sum(dim=1)
    batch = dataclasses.replace(made, scores=torch.where(2 * small > made.lengths, 1.0, -1.0))
    mask = batch.response_mask
    values = (0.3 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * mask
    own = gae(place_scores(batch), values, mask, gamma=1.0, gae_lambda=0.9)
    policy = new_policy()
    metrics = gradient_forecast(Models(policy, policy), batch, own, settings)
    returns = monte_carlo_returns(place_scores(batch), mask, gamma=1.0)
    reading = Reading("c", values, returns, mask, batch.scores, batch.group)
    how = GradientSettings(temperature=1.0, max_tokens=2000, batch_size=12)
    (measured,) = measure_alignments([reading], [0.9], policy, batch, how)
    by_method: dict[str, Alignment] = {one.method: one for one in measured.alignments}
    (from_dump,) = surrogate_alignments([reading], [0.9], batch_size=12)
    scaled = by_method["preconditioned"]
    assert scaled.with_reward.value is not None
    close(metrics, "reward_cosine", scaled.with_reward)
    close(metrics, "length_cosine", scaled.with_length)
    close(metrics, "gain_share", scaled.against_monte_carlo)
    close(metrics, "reward_ceiling", scaled.reward_ceiling)
    close(metrics, "plain_reward_cosine", by_method["gradient"].with_reward)
    close(metrics, "surrogate_reward_cosine", from_dump.alignments[0].with_reward)


def test_where_all_scores_are_alike_no_direction_is_told() -> None:
    batch = dataclasses.replace(random_batch([3, 4] * 8), scores=torch.ones(16))
    policy = new_policy()
    own = batch.response_mask.float()
    assert gradient_forecast(Models(policy, policy), batch, own, tiny("rollout.prompts=12")) == {}


def test_by_pencil_the_end_is_the_last_tenth_and_a_last_token_at_least() -> None:
    mask = torch.ones(1, 20, dtype=torch.bool)
    values = torch.zeros(1, 20)
    values[0, 18:] = torch.tensor([3.0, 4.0])
    metrics = critic_forecast(values, torch.zeros(1, 20), mask)
    assert metrics["forecast/end_error"] == pytest.approx(math.sqrt(12.5))
    assert metrics["forecast/value_bias"] == pytest.approx(7 / 20)
    short = critic_forecast(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert short["forecast/end_error"] == 2.0
