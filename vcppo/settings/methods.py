"""Methods by name: each is a set of settings beneath those that are given explicitly, and nothing else.

A method sets what makes it that method. Learning rates, batch sizes and numbers of epochs stay the trainer's own, so
that methods compared on one task have the same budget; docs/methods.md tells the published ones beside ours.

A method that is named after other settings, by a flag after a file or by an arm after a study's [base], is that method:
what they say of the slots that it fills gives way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """A named set of settings: `method=NAME`."""

    title: str
    source: str
    settings: Mapping[str, Any]  # dotted names, over the defaults


_GROUPS = {"rollout.prompts": 12, "rollout.samples_per_prompt": 8}
_UNCALIBRATED = {"pretrain.steps": 0, "gae.lambda_actor": 0.95, "gae.lambda_critic": 0.95}
_GRPO = {**_GROUPS, "advantage.estimator": "grpo", "policy.aggregation": "sequence-mean"}
_GRPO_KL = {"kl.placement": "loss", "kl.estimator": "k3", "kl.coefficient": 0.04}
_KL_IN_REWARD = {"kl.placement": "reward", "kl.estimator": "k1"}
_RTO = {
    **_UNCALIBRATED,
    **_KL_IN_REWARD,
    "kl.coefficient": 0.01,
    "token_reward.weight": 0.05,
    "critic.value_loss": "clipped",
    "critic.value_clip_range": 0.2,
    "advantage.whiten": "batch",
}
_DPO = {**_GROUPS, "advantage.estimator": "none", "policy.loss": "dpo", "policy.dpo_beta": 0.1}

METHODS: Mapping[str, Method] = {
    "vcppo": Method(
        "VC-PPO",
        "arXiv:2503.01491",
        {"pretrain.steps": "converge", "gae.lambda_actor": 0.95, "gae.lambda_critic": 1.0},
    ),
    "ppo": Method("PPO from a reward-model critic", "arXiv:1707.06347, as in arXiv:2503.01491", _UNCALIBRATED),
    "ppo-max": Method(
        "PPO-max",
        "arXiv:2307.04964",
        {
            "gae.lambda_actor": 0.95,
            "gae.lambda_critic": 0.95,
            "reward.normalise": "standardise",
            "reward.clip": 10.0,
            **_KL_IN_REWARD,
            "kl.coefficient": 0.05,
            "advantage.whiten": "minibatch",
            "advantage.clip": 0.5,
            "critic.value_loss": "clipped",
            "critic.value_clip_range": 0.2,
            "policy.demonstration_nll": 0.05,
        },
    ),
    "ppo-xu": Method(
        "PPO of 'Is DPO superior to PPO?'",
        "arXiv:2404.10719",
        {
            "pretrain.steps": 0,
            "gae.lambda_actor": 1.0,
            "gae.lambda_critic": 1.0,
            "reward.clip": 20.0,
            "reward.truncated": 0.0,
            **_KL_IN_REWARD,
            "kl.coefficient": 0.1,
            "reference.ema": 0.001,
            "advantage.whiten": "batch",
            "critic.normalise_returns": True,
            "critic.value_loss": "clipped",
            "critic.value_clip_range": 0.2,
        },
    ),
    "vapo": Method(
        "VAPO",
        "arXiv:2504.05118",
        {
            **_GROUPS,
            "gae.lambda_critic": 1.0,
            "gae.length_adaptive_alpha": 0.05,
            "policy.clip_high": 0.28,
            "policy.aggregation": "token-mean",
            "policy.positive_nll": 0.1,
        },
    ),
    "dvpo": Method(
        "DVPO: value model pretrained, then frozen",
        "arXiv:2502.16944",
        {"advantage.estimator": "td", "critic.update_every": "never", "advantage.whiten": "batch"},
    ),
    "vineppo": Method(
        "VinePPO",
        "arXiv:2410.01679",
        {
            **_GROUPS,
            "advantage.estimator": "vine",
            "vine.samples": 9,
            "advantage.whiten": "batch",
            "kl.placement": "loss",
            "kl.estimator": "k3",
            "kl.coefficient": 1e-4,
        },
    ),
    "rto": Method("RTO", "arXiv:2404.18922", {**_RTO, "token_reward.kind": "rto"}),
    "semi-rto": Method("Semi-RTO", "arXiv:2404.18922", {**_RTO, "token_reward.kind": "semi-rto"}),
    "ddpo": Method("DDPO, RTO with the reward at the end", "arXiv:2404.18922", {**_RTO, "token_reward.kind": "ddpo"}),
    "rs-ppo": Method("RS-PPO, RTO as shaping", "arXiv:2404.18922", {**_RTO, "token_reward.kind": "rs-ppo"}),
    "dpo": Method("DPO on verified responses", "arXiv:2305.18290", {**_DPO, "rollout.refresh_every": "never"}),
    "dpo-iter": Method(
        "Iterative DPO",
        "arXiv:2404.10719",
        {**_DPO, "rollout.refresh_every": 10, "reference.refresh_every": 10},
    ),
    "apa": Method(
        "APA",
        "arXiv:2306.02231",
        {
            **_UNCALIBRATED,
            "critic.init": "policy",
            "policy.loss": "apa",
            "policy.advantage_temperature": 0.1,
            "advantage.whiten": "minibatch",
        },
    ),
    "awr": Method(
        "AWR, as APA's paper runs it",
        "arXiv:2306.02231",
        {
            **_UNCALIBRATED,
            "critic.init": "policy",
            "policy.loss": "awr",
            "policy.advantage_temperature": 2.0,
            "advantage.whiten": "minibatch",
        },
    ),
    "espo": Method(
        "ESPO",
        "arXiv:2202.00079",
        {
            **_UNCALIBRATED,
            "critic.init": "policy",
            "policy.loss": "unclipped",
            "policy.epochs": 4,
            "early_stop.deviation": "tokens",
            "early_stop.threshold": 0.25,
            "advantage.whiten": "minibatch",
        },
    ),
    "cppo": Method(
        "CPPO",
        "arXiv:2503.22342",
        {**_GRPO, **_GRPO_KL, "rollout.prompts": 6, "select.prune_rate": 0.5, "select.refill": True},
    ),
    "grpo": Method("GRPO", "arXiv:2402.03300", {**_GRPO, **_GRPO_KL}),
    "dr-grpo": Method(
        "Dr. GRPO",
        "arXiv:2503.20783",
        {**_GRPO, "advantage.group_scale": False, "policy.aggregation": "fixed-length"},
    ),
    "dapo": Method(
        "DAPO",
        "arXiv:2503.14476",
        {
            **_GRPO,
            "policy.clip_high": 0.28,
            "policy.aggregation": "token-mean",
            "select.dynamic_sampling": True,
            "reward.overlong_share": 0.2,
        },
    ),
    "rloo": Method(
        "RLOO",
        "arXiv:2402.14740",
        {
            **_GROUPS,
            **_KL_IN_REWARD,
            "kl.coefficient": 0.03,
            "advantage.estimator": "rloo",
            "policy.aggregation": "fixed-length",
        },
    ),
    "reinforce++": Method(
        "REINFORCE++",
        "arXiv:2501.03262",
        {**_KL_IN_REWARD, "kl.coefficient": 0.01, "advantage.estimator": "return", "advantage.whiten": "batch"},
    ),
    "reinforce++-baseline": Method(
        "REINFORCE++ with group baseline",
        "arXiv:2501.03262",
        {
            **_GROUPS,
            "advantage.estimator": "grpo",
            "advantage.group_scale": False,
            "advantage.whiten": "batch",
            "kl.placement": "loss",
            "kl.estimator": "k2",
            "kl.coefficient": 0.01,
        },
    ),
    "gspo": Method(
        "GSPO",
        "arXiv:2507.18071",
        {**_GRPO, "policy.loss": "gspo", "policy.clip_low": 3e-4, "policy.clip_high": 4e-4},
    ),
    "cispo": Method(
        "CISPO",
        "arXiv:2506.13585",
        {
            **_GRPO,
            "policy.loss": "cispo",
            "policy.clip_low": 1.0,
            "policy.clip_high": 4.0,
            "policy.aggregation": "token-mean",
        },
    ),
}

# What every method decides, thus unless it says otherwise: whose advantages, which loss, a critic pretrained or not.
DECIDED: Mapping[str, Any] = {
    "advantage.estimator": "gae",
    "policy.loss": "clip",
    "pretrain.steps": "converge",
    "gae.length_adaptive_alpha": None,
    "critic.update_every": 1,
    "token_reward.kind": "none",
    "early_stop.deviation": "none",
}
# What a run may spend is no method's own, though some propose it.
BUDGET = ("rollout.prompts", "rollout.samples_per_prompt", "policy.epochs", "vine.samples")
SLOTS = frozenset({*DECIDED, *(name for method in METHODS.values() for name in method.settings)})


def fills(method: str) -> dict[str, Any]:
    """The slots that a method fills, whatever was said of them before it was named."""
    settings = {**DECIDED, **METHODS[method].settings}
    return {name: value for name, value in settings.items() if name not in BUDGET}


def agree(name: str, given: Any, wanted: Any) -> bool:
    """True if a slot has the value wanted; of `pretrain.steps`, a budget, only whether there is pretraining counts."""
    return bool(given == wanted or (name == "pretrain.steps" and 0 not in (given, wanted)))
