"""Metrics of an update are those that the record of its loss names."""

import dataclasses

import pytest
import torch
from tiny import new_policy, random_batch, tiny

from vcppo.models.optimiser import Optimiser
from vcppo.rl.costs import Costs
from vcppo.rl.metrics import policy_metrics
from vcppo.rl.policy_update import update_policy
from vcppo.settings.losses import POLICY_LOSSES

ALWAYS = {"loss", "entropy", "approx_kl", "clip_fraction", "ratio_max", "ref_kl", "grad_norm", "updates"}


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_an_update_logs_what_its_losss_record_says(name: str) -> None:
    record = POLICY_LOSSES[name]
    more = {"dpo": ("advantage.estimator=none", "rollout.samples_per_prompt=2"), "clip": ("policy.dual_clip=3",)}
    settings = tiny(f"policy.loss={name}", *more.get(name, ()))
    policy = new_policy()
    batch = random_batch([3, 2, 4, 1])
    batch = dataclasses.replace(batch, correct=torch.tensor([True, False, True, False]))
    update = update_policy(
        policy,
        Optimiser(policy, settings.policy, 1),
        batch,
        torch.where(batch.response_mask, batch.scores[:, None], 0.0),
        batch.old_logprobs if record.needs_reference else None,
        settings,
        fixed_length=8,
        costs=Costs(),
    )
    assert set(policy_metrics([update])) == {f"policy/{metric}" for metric in ALWAYS} | set(record.metrics)
