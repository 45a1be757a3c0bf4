"""One optimiser step of the actor, one of the critic."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny
from transformers import AutoModelForTokenClassification, PreTrainedModel

from vcppo.errors import TrainingError
from vcppo.models import forward
from vcppo.models.optimiser import Optimiser
from vcppo.rl.costs import Costs
from vcppo.rl.critic_update import CriticUpdate, read_final_values, read_values, update_critic
from vcppo.rl.metrics import policy_metrics
from vcppo.rl.policy_update import PolicyUpdate, read_logprobs, update_policy
from vcppo.settings.critic import RewardModelCriticSettings
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch

LENGTHS = [5, 1, 3, 7, 2, 6]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def on_policy(policy: PreTrainedModel) -> RolloutBatch:
    batch = random_batch(LENGTHS)
    return dataclasses.replace(batch, old_logprobs=read_logprobs(policy, batch, temperature=1.0, max_tokens=1000))


def advantages_for(batch: RolloutBatch) -> torch.Tensor:
    return torch.where(batch.response_mask, batch.scores[:, None] * (1 + torch.arange(7.0) / 7), 0.0)


def told(update: PolicyUpdate) -> dict[str, float]:
    return {name: value for name, value in vars(update).items() if value is not None}


class Gradient(Optimiser):
    """Keeps the gradient instead of stepping."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model, tiny().policy, 10)

    def step(self) -> float:
        self.kept = torch.cat([p.grad.flatten() for p in self._parameters]).clone()
        for parameter in self._parameters:
            parameter.grad = None
        return float(self.kept.norm())


def policy_gradient(
    policy: PreTrainedModel, batch: RolloutBatch, settings: RunSettings, ref: torch.Tensor | None = None
) -> tuple[torch.Tensor, PolicyUpdate]:
    optimiser = Gradient(policy)
    update = update_policy(
        policy, optimiser, batch, advantages_for(batch), ref, settings, fixed_length=16, costs=Costs()
    )
    return optimiser.kept, update


def new_critic() -> PreTrainedModel:
    config = new_policy().config
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plainly(AutoModelForTokenClassification.from_config(config).eval())


def critic_gradient(critic: PreTrainedModel, batch: RolloutBatch, **more: Any) -> tuple[torch.Tensor, CriticUpdate]:
    optimiser = Gradient(critic)
    values = read_values(critic, batch, 1000)
    chosen: dict[str, Any] = {
        "kind": "mse",
        "clip_range": 0.5,
        "aggregation": "token-mean",
        "fixed_length": 16,
        "max_tokens": 1000,
    }
    update = update_critic(critic, optimiser, batch, values, advantages_for(batch), **{**chosen, **more})
    return optimiser.kept, update


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean", "fixed-length"])
@pytest.mark.parametrize("max_tokens", [1, 13, 25])
def test_gradients_do_not_depend_on_the_size_of_micro_batches(aggregation: str, max_tokens: int) -> None:
    policy, critic = new_policy(), new_critic()
    batch = random_batch(LENGTHS)  # old_logprobs far off: some tokens are clipped
    batch = dataclasses.replace(batch, correct=batch.scores > 0)
    ref = batch.old_logprobs - 0.1
    options = (
        f"policy.aggregation={aggregation}",
        "policy.entropy_coefficient=0.1",
        "kl.placement=loss",
        "kl.coefficient=0.3",
        "policy.positive_nll=0.2",
    )
    whole, of_whole = policy_gradient(policy, batch, tiny(*options, "micro_batch_tokens=1000"), ref)
    parts, of_parts = policy_gradient(policy, batch, tiny(*options, f"micro_batch_tokens={max_tokens}"), ref)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert told(of_parts) == pytest.approx(told(of_whole), rel=1e-4, abs=1e-6)
    assert set(told(of_whole)) == {
        "loss", "entropy", "approx_kl", "clip_fraction", "ratio_max", "ref_kl", "grad_norm", "positive_nll",
    }  # fmt: skip
    whole, critic_of_whole = critic_gradient(critic, batch, aggregation=aggregation)
    parts, critic_of_parts = critic_gradient(critic, batch, aggregation=aggregation, max_tokens=max_tokens)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert critic_of_parts.loss == pytest.approx(critic_of_whole.loss, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 1000])
def test_tokens_that_the_dual_clip_decides_are_counted_over_the_minibatch(max_tokens: int) -> None:
    """At a ratio of 4 everywhere it decides every bad token, and the clip of the ratio every good one."""
    policy = new_policy()
    batch = on_policy(policy)
    batch = dataclasses.replace(batch, old_logprobs=batch.old_logprobs - math.log(4))
    bad = float((batch.response_mask & (batch.scores < 0)[:, None]).sum() / batch.response_mask.sum())
    assert 0 < bad < 1
    _, update = policy_gradient(policy, batch, tiny("policy.dual_clip=3", f"micro_batch_tokens={max_tokens}"))
    assert (update.dual_clip_fraction, update.clip_fraction) == pytest.approx((bad, 1 - bad))
    assert policy_metrics([update])["policy/dual_clip_fraction"] == pytest.approx(bad)
    _, without = policy_gradient(policy, batch, tiny(f"micro_batch_tokens={max_tokens}"))
    assert "policy/dual_clip_fraction" not in policy_metrics([without])


def test_on_policy_the_gradient_is_the_policy_gradient() -> None:
    policy = new_policy()
    batch = on_policy(policy)
    got, update = policy_gradient(policy, batch, tiny())
    logprobs, _ = forward.response_logprobs(policy, batch, 1.0)
    (-(logprobs * advantages_for(batch)).sum() / sum(LENGTHS)).backward()
    want = torch.cat([p.grad.flatten() for p in policy.parameters()])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert update.ratio_max == pytest.approx(1.0, abs=1e-5)
    assert update.clip_fraction == 0
    assert update.approx_kl == pytest.approx(0, abs=1e-6)


def test_the_temperature_of_sampling_is_the_temperature_of_the_ratio() -> None:
    policy, batch = new_policy(), random_batch(LENGTHS)
    old = read_logprobs(policy, batch, temperature=0.5, max_tokens=1000)
    batch = dataclasses.replace(batch, old_logprobs=old)
    _, same = policy_gradient(policy, batch, tiny("rollout.temperature=0.5"))
    _, other = policy_gradient(policy, batch, tiny("rollout.temperature=1.0", "guard.max_ratio=1e9"))
    assert same.ratio_max == pytest.approx(1.0, abs=1e-5)
    assert other.ratio_max > 1.1


def entropy_after(coefficient: float) -> tuple[float, float]:
    policy = new_policy()
    batch = on_policy(policy)
    settings = tiny(f"policy.entropy_coefficient={coefficient}", "policy.learning_rate=0.01")
    optimiser = Optimiser(policy, settings.policy, 10)
    nothing = torch.zeros_like(batch.old_logprobs)
    before = update_policy(policy, optimiser, batch, nothing, None, settings, fixed_length=16, costs=Costs())
    after = update_policy(policy, optimiser, batch, nothing, None, settings, fixed_length=16, costs=Costs())
    return before.entropy, after.entropy


def test_the_entropy_bonus_raises_entropy_and_no_bonus_leaves_it() -> None:
    before, after = entropy_after(0.1)
    assert after > before + 0.01
    before, after = entropy_after(0.0)
    assert after == before


def test_kl_in_the_loss_pulls_towards_the_reference_only_where_asked() -> None:
    reference, policy = new_policy(seed=1), new_policy()
    batch = on_policy(policy)
    ref = read_logprobs(reference, batch, temperature=1.0, max_tokens=1000)
    nothing = torch.zeros_like(ref)
    for placement, pulls in [("loss", True), ("reward", False)]:
        policy = new_policy()
        settings = tiny(f"kl.placement={placement}", "kl.coefficient=1.0", "policy.learning_rate=0.01")
        optimiser = Optimiser(policy, settings.policy, 10)
        told = [
            update_policy(policy, optimiser, batch, nothing, ref, settings, fixed_length=16, costs=Costs())
            for _ in range(5)
        ]
        assert told[0].ref_kl > 0
        assert (told[-1].ref_kl < told[0].ref_kl - 0.01) == pulls
        assert pulls or told[-1].ref_kl == told[0].ref_kl


PAIRS = [3, 5, 7, 2, 4, 6]  # rows 2p and 2p + 1 are one


def autograd(policy: PreTrainedModel, loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])
    policy.zero_grad(set_to_none=True)
    return gradient


def live_logprobs(policy: PreTrainedModel, batch: RolloutBatch) -> torch.Tensor:
    return forward.response_logprobs(policy, batch, 1.0)[0]


@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_dpos_gradient_is_that_of_its_loss_though_micro_batches_part_the_pairs(max_tokens: int) -> None:
    policy, batch = new_policy(), random_batch(PAIRS)
    ref = read_logprobs(new_policy(seed=1), batch, temperature=1.0, max_tokens=1000)
    dpo = ("method=dpo", "policy.dpo_beta=0.7", "rollout.samples_per_prompt=2", f"micro_batch_tokens={max_tokens}")
    costs, optimiser = Costs(), Gradient(policy)
    nothing = torch.zeros_like(ref)
    update = update_policy(policy, optimiser, batch, nothing, ref, tiny(*dpo), fixed_length=16, costs=costs)
    gains = (live_logprobs(policy, batch) - ref).sum(dim=1)
    margins = 0.7 * (gains[::2] - gains[1::2])
    loss = -torch.nn.functional.logsigmoid(margins).mean()
    torch.testing.assert_close(optimiser.kept, autograd(policy, loss), rtol=1e-4, atol=1e-6)
    assert update.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert update.preference_margin == pytest.approx(float(margins.detach().mean()), rel=1e-4)
    assert update.preference_accuracy == pytest.approx(float((margins > 0).float().mean()))
    tokens = int(batch.total_lengths.sum())
    assert (costs.forward_tokens, costs.backward_tokens) == (tokens, tokens)


@pytest.mark.parametrize("max_tokens", [13, 1000])
def test_right_responses_are_imitated_by_the_mean_over_their_tokens_alone(max_tokens: int) -> None:
    policy = new_policy()
    batch = dataclasses.replace(on_policy(policy), correct=torch.tensor([True, False, True, False, False, True]))
    size = f"micro_batch_tokens={max_tokens}"
    with_it, update = policy_gradient(policy, batch, tiny("policy.positive_nll=0.3", size))
    without, plain = policy_gradient(policy, batch, tiny(size))
    nll = -live_logprobs(policy, batch)[batch.correct].sum() / (LENGTHS[0] + LENGTHS[2] + LENGTHS[5])
    torch.testing.assert_close(with_it - without, autograd(policy, 0.3 * nll), rtol=1e-3, atol=1e-6)
    assert update.positive_nll == pytest.approx(float(nll.detach()), rel=1e-5)
    assert update.loss == pytest.approx(plain.loss + 0.3 * float(nll.detach()), abs=1e-5)
    wrong = dataclasses.replace(batch, correct=torch.zeros(6, dtype=torch.bool))
    same, update = policy_gradient(policy, wrong, tiny("policy.positive_nll=0.3", size))
    assert torch.equal(same, without)
    assert update.positive_nll is None


@pytest.mark.parametrize("max_tokens", [13, 1000])
def test_demonstrations_are_imitated_at_temperature_one_beside_the_policy_loss(max_tokens: int) -> None:
    policy, shown = new_policy(), random_batch([4, 2, 6], seed=3)
    batch = on_policy(policy)
    costs, optimiser = Costs(), Gradient(policy)
    settings = tiny("policy.demonstration_nll=0.2", "rollout.temperature=2.0", f"micro_batch_tokens={max_tokens}")
    nothing = torch.zeros_like(batch.old_logprobs)  # no advantage: what is left is imitation
    options: dict[str, Any] = {"fixed_length": 16, "costs": costs}
    update = update_policy(policy, optimiser, batch, nothing, None, settings, demonstrations=shown, **options)
    nll = -live_logprobs(policy, shown).sum() / 12
    torch.testing.assert_close(optimiser.kept, autograd(policy, 0.2 * nll), rtol=1e-4, atol=1e-6)
    assert update.demonstration_nll == pytest.approx(float(nll.detach()), rel=1e-5)
    assert costs.backward_tokens == int(batch.total_lengths.sum() + shown.total_lengths.sum())


@pytest.mark.parametrize("wrong", ["ratio", "nan"])
def test_training_that_has_left_sense_stops_with_the_weights_as_they_were(wrong: str) -> None:
    policy = new_policy()
    batch = on_policy(policy)
    advantages = advantages_for(batch)
    if wrong == "ratio":
        batch.old_logprobs[3, 2] -= 12.0  # e^12 > 1e4
        message = r"probability ratio 1\.63e\+05 at policy update 0, guard.max_ratio is 10000"
    else:
        advantages[3, 2] = float("nan")
        message = "gradient norm is nan at update 0"
    settings = tiny()
    optimiser = Optimiser(policy, settings.policy, 10)
    before = weights(policy)
    with pytest.raises(TrainingError, match=message):
        update_policy(policy, optimiser, batch, advantages, None, settings, fixed_length=16, costs=Costs())
    assert torch.equal(weights(policy), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_model_that_says_no_numbers_is_told_by_its_name_before_anything_is_made_of_them(value: float) -> None:
    policy, critic, batch = new_policy(), new_critic(), random_batch(LENGTHS)
    for model in (policy, critic):
        model.name_or_path = "somebody/broken"
        with torch.no_grad():
            model.base_model.norm.weight.fill_(value)
            list(model.parameters())[-1].fill_(value)
    reads: dict[str, Callable[[], object]] = {
        "LlamaForCausalLM": lambda: read_logprobs(policy, batch, temperature=1.0, max_tokens=100),
        "LlamaForTokenClassification": lambda: read_values(critic, batch, 100),
    }
    for name, read in reads.items():
        with pytest.raises(TrainingError, match=f"^{name} from somebody/broken: {sum(LENGTHS)} of the numbers read"):
            read()
    with pytest.raises(TrainingError, match=f"^LlamaForTokenClassification from somebody/broken: {len(LENGTHS)} of"):
        read_final_values(critic, batch, 100)


def test_a_critic_of_targets_that_are_no_numbers_stops_with_its_weights_as_they_were() -> None:
    critic, batch = new_critic(), random_batch(LENGTHS)
    targets = advantages_for(batch)
    targets[0, 0] = float("inf")
    optimiser = Optimiser(critic, RewardModelCriticSettings(), 10)
    before = weights(critic)
    options: dict[str, Any] = {
        "kind": "mse",
        "clip_range": 0.5,
        "aggregation": "token-mean",
        "fixed_length": 16,
        "max_tokens": 100,
    }
    with pytest.raises(TrainingError, match="gradient norm is"):
        update_critic(critic, optimiser, batch, targets, targets, **options)
    assert torch.equal(weights(critic), before)


def test_the_critic_weighs_tokens_its_own_way() -> None:
    critic, batch = new_critic(), random_batch(LENGTHS)
    values, returns = read_values(critic, batch, 1000), advantages_for(batch)
    errors = 0.5 * (values - returns).square()
    by_token = float(errors.sum()) / sum(LENGTHS)
    by_response = float((errors.sum(dim=1) / torch.tensor(LENGTHS)).mean())
    assert critic_gradient(critic, batch)[1].loss == pytest.approx(by_token, rel=1e-5)
    assert critic_gradient(critic, batch, aggregation="sequence-mean")[1].loss == pytest.approx(by_response, rel=1e-5)
    assert by_token != pytest.approx(by_response, rel=0.01)


def test_the_critic_learns_its_targets() -> None:
    critic, batch = new_critic(), random_batch(LENGTHS)
    settings = RewardModelCriticSettings(learning_rate=0.01)
    optimiser = Optimiser(critic, settings, 10)
    values, returns = read_values(critic, batch, 1000), advantages_for(batch)
    options: dict[str, Any] = {
        "kind": "mse",
        "clip_range": 0.5,
        "aggregation": "token-mean",
        "fixed_length": 16,
        "max_tokens": 100,
    }
    losses = [update_critic(critic, optimiser, batch, values, returns, **options).loss for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
