"""Agreement with verl 0.9.1 and TRL 1.16.0, which computed the outputs in the JSON files of those names.

`make_verl_golden.py` and `make_trl_golden.py` say how, and where the two have conventions that are not ours.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vcppo.maths.advantages import gae, group_advantages, monte_carlo_returns, rloo_advantages, whiten
from vcppo.maths.losses import KL_ESTIMATORS, denominators, policy_loss, preference_pull, value_loss
from vcppo.settings.losses import POLICY_LOSSES


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return found


GOLDEN = read("verl_0.9.1.json") | {"dpo": read("trl_1.16.0.json")["dpo"]}
OURS = {
    "token-mean": "token-mean",
    "seq-mean-token-mean": "sequence-mean",
    "seq-mean-token-sum-norm": "fixed-length",
}
TOLERANCE = 1e-6
float32_too = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def outputs(kind: str) -> list[Any]:
    """Every (case, output) of a kind, each a test of its own."""
    pairs = [(case, output) for case in GOLDEN[kind] for output in case["outputs"]]
    told = ("gamma", "gae_lambda", "scale", "aggregation", "clip_low", "clip_high", "dual_clip", "clip_range", "beta")
    return [
        pytest.param(case, output, id=f"{case['lengths']}-" + "-".join(str(output[k]) for k in told if k in output))
        for case, output in pairs
    ]


def mask_of(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def filled(stored: list[float], response_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The True cells as stored, NaN elsewhere."""
    return torch.full(response_mask.shape, torch.nan, dtype=dtype).masked_scatter(
        response_mask, torch.tensor(stored, dtype=dtype)
    )


def agree(found: Tensor, stored: float | list[float]) -> None:
    expected = torch.tensor(stored, dtype=torch.float64)
    torch.testing.assert_close(found.detach().to(torch.float64), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("library", "release"), [("verl", "0.9.1"), ("trl", "1.16.0")])
def test_outputs_come_from_the_version_that_the_file_is_named_after(library: str, release: str) -> None:
    assert read(f"{library}_{release}.json")["versions"][library] == release


@float32_too
@pytest.mark.parametrize(("case", "output"), outputs("gae"))
def test_gae_agrees(case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype) -> None:
    on = mask_of(case["lengths"])
    rewards, values = (filled(case[name], on, dtype) for name in ("rewards", "values"))
    gae_lambda = output["gae_lambda"]
    if isinstance(gae_lambda, list):
        gae_lambda = torch.tensor(gae_lambda, dtype=dtype)
    advantages = gae(rewards, values, on, gamma=output["gamma"], gae_lambda=gae_lambda)
    agree(advantages[on], output["advantages"])
    agree(whiten(advantages, on)[on], output["whitened"])


@float32_too
@pytest.mark.parametrize(("case", "output"), outputs("group"))
def test_group_advantages_agree(case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype) -> None:
    on, scores = mask_of(case["lengths"]), torch.tensor(case["scores"], dtype=dtype)
    found = group_advantages(scores, torch.tensor(case["group"]), on, scale=output["scale"])
    agree(found[on], output["advantages"])


@float32_too
@pytest.mark.parametrize("case", GOLDEN["outcome"], ids=lambda case: str(case["lengths"]))
def test_rloo_and_reinforce_plus_plus_baseline_agree(case: dict[str, Any], dtype: torch.dtype) -> None:
    """The same Bessel-corrected variance plus 1e-8 on both sides; no group of one."""
    on, group = mask_of(case["lengths"]), torch.tensor(case["group"])
    scores = torch.tensor(case["scores"], dtype=dtype)
    agree(rloo_advantages(scores, group, on)[on], case["rloo"])
    agree(whiten(group_advantages(scores, group, on, scale=False), on)[on], case["reinforce++-baseline"])


@float32_too
@pytest.mark.parametrize(("case", "output"), outputs("reinforce++"))
def test_reinforce_plus_plus_agrees(case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype) -> None:
    on = mask_of(case["lengths"])
    returns = monte_carlo_returns(filled(case["rewards"], on, dtype), on, gamma=output["gamma"])
    agree(returns[on], output["returns"])
    agree(whiten(returns, on)[on], output["advantages"])


@float32_too
@pytest.mark.parametrize(
    ("kind", "case", "output"),
    [
        pytest.param(kind, *case.values, id=f"{kind}-{case.id}")
        for kind, stored in (("clip", "policy"), ("gspo", "gspo"), ("cispo", "cispo"))
        for case in outputs(stored)
    ],
)
def test_policy_loss_and_its_gradient_agree(
    kind: str, case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype
) -> None:
    """`policy` holds PPO's clip: the same on both sides, clip-higher, dual."""
    on = mask_of(case["lengths"])
    logprobs, old, advantages = (filled(case[name], on, dtype) for name in ("logprobs", "old_logprobs", "advantages"))
    found = policy_loss(
        logprobs.requires_grad_(),
        old,
        advantages,
        on,
        token_losses=POLICY_LOSSES[kind].compute,
        clip_low=output["clip_low"],
        clip_high=output["clip_high"],
        dual_clip=output.get("dual_clip"),
        advantage_temperature=1.0,
        aggregation=OURS[output["aggregation"]],
        over=denominators(on, fixed_length=case["fixed_length"]),
    )
    agree(found.loss, output["loss"])
    agree(found.clip_fraction, output["clip_fraction"])
    agree(found.dual_clip_fraction, output.get("dual_clip_fraction", 0.0))
    agree(torch.autograd.grad(found.loss, logprobs)[0][on], output["gradient"])


@float32_too
@pytest.mark.parametrize(("case", "output"), outputs("dpo"))
def test_dpo_agrees(case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype) -> None:
    on = mask_of(case["lengths"])
    logprobs, ref_logprobs = (filled(case[name], on, dtype) for name in ("logprobs", "ref_logprobs"))
    found = preference_pull(logprobs, ref_logprobs, on, beta=output["beta"])
    for name in ("loss", "accuracy", "margin"):
        agree(getattr(found, name), output[name])
    agree(-found.weights[:, None].expand_as(on)[on], output["gradient"])


@float32_too
@pytest.mark.parametrize(("case", "output"), outputs("value"))
def test_value_loss_and_its_gradient_agree(case: dict[str, Any], output: dict[str, Any], dtype: torch.dtype) -> None:
    on = mask_of(case["lengths"])
    new_values, values, returns = (filled(case[name], on, dtype) for name in ("new_values", "values", "returns"))
    new_values.requires_grad_()
    over = denominators(on, fixed_length=case["fixed_length"])
    kinds = ["clipped", "mse"] if output["clip_range"] > 1e6 else ["clipped"]
    for kind in kinds:
        found = value_loss(
            new_values,
            values,
            returns,
            on,
            kind=kind,
            clip_range=output["clip_range"],
            aggregation=OURS[output["aggregation"]],
            over=over,
        )
        agree(found.loss, output["loss"])
        agree(found.clip_fraction, output["clip_fraction"])
        agree(torch.autograd.grad(found.loss, new_values)[0][on], output["gradient"])


@float32_too
@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_estimators_agree(name: str, dtype: torch.dtype) -> None:
    logprobs, reference = (torch.tensor(GOLDEN["kl"][x], dtype=dtype) for x in ("logprobs", "ref_logprobs"))
    agree(KL_ESTIMATORS[name](logprobs, reference), GOLDEN["kl"][name])
