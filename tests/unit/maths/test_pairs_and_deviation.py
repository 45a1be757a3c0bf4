"""DPO's pull on pairs and ESPO's deviation: closed forms."""

import math

import pytest
import torch
from loss_batches import close, drawn, mask_of
from torch import Tensor

from vcppo.maths.losses import DEVIATION_SCOPES, preference_pull, ratio_deviation

every_scope = pytest.mark.parametrize("scope", DEVIATION_SCOPES)


def pair(*probabilities: float) -> Tensor:
    """Log-probabilities of one-token responses."""
    return torch.tensor(probabilities, dtype=torch.float64).log()[:, None]


@pytest.mark.parametrize(("chosen", "rejected"), [(0.6, 0.3), (0.2, 0.1), (0.02, 0.01)])
def test_dpo_sees_a_pairs_ratio_only(chosen: float, rejected: float) -> None:
    """The counter-example of arXiv:2404.10719: log(1 + 2^-beta), though the last leaves 97 % to an unseen response."""
    found = preference_pull(pair(chosen, rejected), pair(0.5, 0.5), mask_of(1, 1), beta=0.1)
    assert found.loss.item() == pytest.approx(0.65909, abs=5e-6)
    assert found.loss.item() == pytest.approx(math.log(1 + 2**-0.1), rel=1e-12)
    assert (found.accuracy.item(), found.margin.item()) == pytest.approx((1.0, 0.1 * math.log(2)), rel=1e-12)


def test_dpo_at_the_reference_pulls_every_pair_by_half_of_beta() -> None:
    on, ref = drawn(3, 5, 1, 2, tensors=1)
    found = preference_pull(ref, ref, on, beta=0.2)
    close(found.weights, torch.tensor([0.05, -0.05, 0.05, -0.05], dtype=torch.float64))
    assert found.loss.item() == pytest.approx(math.log(2))
    assert (found.accuracy.item(), found.margin.item()) == (0, 0)


def test_dpo_pushes_a_pair_in_the_wrong_order_harder() -> None:
    """Gains of +-2 and -+1 over the reference: margins 4 and -2, one of two pairs right."""
    ref = torch.zeros(4, 2, dtype=torch.float64)
    logprobs = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [-0.5, -0.5], [0.5, 0.5]])
    found = preference_pull(logprobs, ref, mask_of(2, 2, 2, 2), beta=1.0)
    right, wrong = 1 / (1 + math.exp(4)) / 2, 1 / (1 + math.exp(-2)) / 2
    close(found.weights, torch.tensor([right, -right, wrong, -wrong], dtype=torch.float64))
    assert found.loss.item() == pytest.approx((math.log1p(math.exp(-4)) + math.log1p(math.exp(2))) / 2)
    assert (found.accuracy.item(), found.margin.item()) == (0.5, 1.0)


def test_the_weights_of_dpo_have_the_gradient_of_its_loss() -> None:
    """-sum_b weights_b sum_t log pi against autograd through the loss as the paper writes it."""
    on, noise, ref = drawn(4, 6, 1, 3, 7, 7, tensors=2)
    logprobs = noise.requires_grad_()
    gains = torch.where(on, logprobs - ref, 0.0).sum(dim=1)
    loss = -torch.sigmoid(0.3 * (gains[0::2] - gains[1::2])).log().mean()
    found = preference_pull(logprobs, ref, on, beta=0.3)
    close(found.loss, loss.detach(), rtol=1e-12, atol=0)
    assert not found.loss.requires_grad
    assert not found.weights.requires_grad
    stand_in = -(found.weights * torch.where(on, logprobs, 0.0).sum(dim=1)).sum()
    slopes = [torch.autograd.grad(x, logprobs)[0] for x in (stand_in, loss)]
    close(*slopes, rtol=1e-12, atol=1e-16)


def test_dpo_ignores_masked_tokens_even_if_not_a_number_and_a_lost_cause_stays_finite() -> None:
    on, logprobs, ref = drawn(4, 2, tensors=2)
    clean = preference_pull(logprobs, ref, on, beta=0.1)
    spoilt, spoilt_ref = (torch.where(on, x, torch.nan) for x in (logprobs, ref))
    dirty = preference_pull(spoilt, spoilt_ref, on, beta=0.1)
    for name in ("loss", "accuracy", "margin", "weights"):
        close(getattr(dirty, name), getattr(clean, name), rtol=0, atol=0)
    lost = preference_pull(torch.tensor([[-1e4], [0.0]]), torch.zeros(2, 1), mask_of(1, 1), beta=1.0)
    assert (lost.loss.item(), lost.weights.tolist()) == (1e4, [1.0, -1.0])


def test_a_response_without_its_partner_is_refused() -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size 3"):
        preference_pull(torch.zeros(3, 2), torch.zeros(3, 2), mask_of(2, 2, 2), beta=0.1)


def deviation_of(ratios: list[list[float]], entropy: Tensor, on: Tensor, scope: str, share: float = 0.2) -> float:
    logprobs = torch.tensor(ratios, dtype=torch.float64).log()
    found = ratio_deviation(logprobs, torch.zeros_like(logprobs), entropy, on, scope=scope, entropy_share=share)
    return found.item()


def test_deviation_is_the_distance_of_two_distributions() -> None:
    """pi_old = (2, 1, 1) / 4, drawn in proportion; pi = (1, 1, 2) / 4: |2-1|/4 + 0 + |1-2|/4."""
    found = deviation_of([[0.5, 0.5, 1.0, 2.0]], torch.zeros(1, 4), mask_of(4), "tokens")
    assert found == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("scope", "share", "expected"),
    [
        ("tokens", 0.2, (0.5 + 0.1 + 0.3 + 0.1 + 2.0) / 5),
        ("sequences", 0.2, ((0.5 + 0.1 + 0.3 + 0.1) / 4 + 2.0) / 2),
        ("high-entropy-tokens", 0.2, 0.3),
        ("high-entropy-tokens", 0.4, (0.3 + 2.0) / 2),
        ("high-entropy-tokens", 0.01, 0.3),  # at least one
        ("high-entropy-tokens", 1.0, (0.5 + 0.1 + 0.3 + 0.1 + 2.0) / 5),
    ],
)
def test_deviation_of_each_scope_by_hand(scope: str, share: float, expected: float) -> None:
    ratios = [[0.5, 1.1, 0.7, 0.9], [3.0, math.nan, math.nan, math.nan]]
    entropy = torch.tensor([[0.1, 0.2, 0.9, 0.0], [0.8, math.nan, 5.0, 5.0]])
    assert deviation_of(ratios, entropy, mask_of(4, 1), scope, share) == pytest.approx(expected, rel=1e-9)


@every_scope
def test_policies_that_agree_do_not_deviate_and_rows_without_tokens_do_not_count(scope: str) -> None:
    on, old, entropy = drawn(5, 2, 0, tensors=2)
    found = ratio_deviation(old.clone().requires_grad_(), old, entropy, on, scope=scope, entropy_share=0.5)
    assert (float(found), found.requires_grad) == (0, False)
    moved = ratio_deviation(old + math.log(1.5), old, entropy, on, scope=scope, entropy_share=0.5)
    assert float(moved) == pytest.approx(0.5)
