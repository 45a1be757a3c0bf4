"""Alignment of the policy gradient that a critic makes with reward: the gradients to compare, and a metric of training.

Compared are gradients of mean scores: g_lambda with the critic's advantages, g_R with Monte-Carlo returns less a
baseline that depends on position or prompt alone, g_L with the tokens still to come less such a baseline. A baseline is
made of responses whose gradient is not multiplied with the one it is part of, or of other responses to the prompt, so
that it adds no bias to their products (vcppo/maths/alignment.py).

Plain dot products hear the loudest decisions alone. On a task of many independent decisions nearly all of the noise,
and of what signal there is, lies in one direction, and every critic's cosine is 1 there, that of one which stalls
included. With gradients divided by the root of their second moments (the diagonal of the Fisher information) each
decision counts by how well it is heard. Measured on `labels`, 60 lines, one base, 2,048 responses: first-order gain of
a batch of 48 as a share of what Monte-Carlo returns reach, beside what RL from there came to in 120 iterations:

    critic                                       lambda   plain  preconditioned (95 %)    right in the end
    pretrained (explained variance 0.08)           0.8     0.49   0.11 [0.04, 0.18]           14 %
                                                   0.95    0.59   0.24 [0.15, 0.34]           43 %
                                                   0.99    0.86   0.68 [0.50, 0.87]           69 %
                                                   1       0.98   0.93 [0.72, 1.16]           97 %
    exact                                          0.95    1.25   1.09 [0.90, 1.27]           97 %
                                                   1       1.05   1.01 [0.80, 1.21]           97 %
    exact, knows the position alone                0.95    0.63   0.42 [0.29, 0.57]           55 %
    exact, does not see failures                   0.95    1.24   0.60 [0.48, 0.71]
    Monte-Carlo, baseline of the position          1       1      1    [0.77, 1.24]           88 % (GRPO)

(Intervals are of the gain alone.) The preconditioned cosine is near 1 in every row but lambda = 0.8: these critics go
uphill, and fail by noise, so the gain tells them apart and the cosine does not. What first-order numbers cannot foresee
is a decay of decisions that the base policy never gets wrong and this critic does not punish: of 618,000 tokens here, 4
had a chance below 5 %, so there is nothing to measure until they have begun to fail.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.alignment import Alignments
from vcppo.maths.alignment_surrogate import later_length_gradients, products_of
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.settings.fixed import FEWEST_PROMPTS
from vcppo.types import RolloutBatch, TokenBatch

FEWEST_TO_A_PROMPT = 4  # responses, for a baseline of the others to it
ROUNDING = 1e-5  # of the largest return: a sum of float32 rewards over a long response, penalties of 0 in it


def shares_prompts(problem: Tensor) -> bool:
    """True if prompts are too few for chunks that share none."""
    return len(problem.unique()) < FEWEST_PROMPTS


def chunks_of(problem: Tensor, count: int) -> Tensor:
    """[B] int64: the chunk of each response, 0 to at most `count` - 1; no problem is in two, sizes are about equal.

    It depends on the problems' numbers and sizes, not on the order of the responses. Of few problems the responses are
    divided in their order, and what is measured holds for these prompts.
    """
    names, index, sizes = torch.unique(problem, return_inverse=True, return_counts=True)
    if shares_prompts(problem):
        return torch.arange(len(problem)) * min(count, len(problem)) // max(len(problem), 1)
    before = sizes.cumsum(0) - sizes
    chunk = torch.unique(before * min(count, len(names)) // len(problem), return_inverse=True)[1]
    return torch.as_tensor(chunk)[index]


def baseline_of(problem: Tensor) -> str:
    """ "prompt" where every problem has some responses, else "position"."""
    _, sizes = torch.unique(problem, return_counts=True)
    return "prompt" if int(sizes.min()) >= FEWEST_TO_A_PROMPT else "position"


def less_baseline(targets: Tensor, response_mask: Tensor, problem: Tensor, chunk: Tensor, *, baseline: str) -> Tensor:
    """[B, T] targets less their mean at this position: over other chunks, or over other responses to the prompt.

    Where nobody else has the position, less the mean of all others' targets, or of none, 0.

    Args:
        targets: [B, T], what comes after each token. problem, chunk: [B].
        baseline: "position" or "prompt".
    """
    by_prompt = baseline == "prompt"
    _, group = torch.unique(problem if by_prompt else chunk, return_inverse=True)
    masked = torch.where(response_mask, targets, 0.0).double()
    live = response_mask.double()
    count = int(group.max()) + 1
    sums, counts = (
        torch.zeros((count, x.shape[1]), dtype=torch.float64).index_add(0, group, x) for x in (masked, live)
    )
    if by_prompt:
        others, number = sums[group] - masked, counts[group] - live
    else:
        others, number = sums.sum(dim=0) - sums[group], counts.sum(dim=0) - counts[group]
    all_others, of_all = others.sum(dim=1, keepdim=True), number.sum(dim=1, keepdim=True)
    mean = torch.where(number > 0, others / number.clamp(min=1), all_others / of_all.clamp(min=1))
    return torch.where(response_mask, targets - mean.float(), 0.0)


def tokens_to_come(response_mask: Tensor) -> Tensor:
    """[B, T] float32: tokens of the response from each one on, itself included."""
    return response_mask.flip(1).cumsum(dim=1).flip(1).float() * response_mask


def truth_advantages(
    returns: Tensor, response_mask: Tensor, problem: Tensor, chunk: Tensor, *, baseline: str
) -> Tensor:
    """[2, B, T]: of the Monte-Carlo gradient, and of the gradient of length."""
    return torch.stack(
        [
            less_baseline(target, response_mask, problem, chunk, baseline=baseline)
            for target in (returns, tokens_to_come(response_mask))
        ]
    )


def chunk_products(gradients: PolicyGradients, of_chunks: Sequence[Tensor]) -> NDArray[np.float64]:
    """[V, V, C, C] dot products of the gradients of C chunks, each [V, K]."""
    kinds = len(of_chunks[0])
    products = gradients.products(torch.cat(list(of_chunks)))
    return products.reshape(len(of_chunks), kinds, len(of_chunks), kinds).transpose(1, 3, 0, 2)


def are_alike(returns: Tensor, response_mask: Tensor) -> bool:
    """True if returns, [B, T], differ by rounding alone: then no direction raises the score, and its sign is chance."""
    live = returns[response_mask]
    return bool(live.max() - live.min() <= ROUNDING * live.abs().max())


def alignment_metrics(
    policy: PreTrainedModel,
    batch: RolloutBatch,
    advantages: Tensor,
    returns: Tensor,
    *,
    temperature: float,
    max_tokens: int,
    chunks: int,
    memory: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Metrics of an iteration: does the gradient of these advantages raise the score, does it lengthen responses?

    Four backward passes over the batch, one for second moments. A z above 2 or below -2 can be told from nothing; that
    of one batch seldom is, so a run is judged by some iterations together: sum z / sqrt(n) of n of them is one again.

    Args:
        batch: rows that are trained on. advantages: [B, T] of the actor, before whitening.
        returns: [B, T] Monte-Carlo.
        chunks: groups of responses. memory: bytes for gradients.
    Returns:
        `alignment/reward_cosine` and `alignment/length_cosine` (preconditioned; NaN where noise hides a length),
        `alignment/score_change` and `alignment/length_change_tokens` along a step of length 1 up this batch's gradient,
        `alignment/score_z`, `alignment/length_z` their values in standard errors. Nothing with fewer than two chunks.
    """
    chunk = chunks_of(batch.group, chunks)
    count = int(chunk.max()) + 1 if len(chunk) else 0
    if count < 2:
        return {}
    truth = truth_advantages(returns, batch.response_mask, batch.group, chunk, baseline=baseline_of(batch.group))
    if are_alike(returns, batch.response_mask):
        truth[0] = 0.0
    kinds = torch.cat([advantages[None], truth])
    groups = [(chunk == number).nonzero()[:, 0] for number in range(count)]
    gradients = PolicyGradients(
        policy, batch, temperature=temperature, max_tokens=max_tokens, held=2 * len(kinds) * count, memory=memory
    )
    gradients.precondition(groups)
    scaled = [made for rows in groups if (made := gradients.of(rows, kinds)[1]) is not None]
    sizes = np.array([len(rows) for rows in groups])
    result = Alignments(chunk_products(gradients, scaled), sizes, rng=rng, resamples=500)
    metrics: dict[str, float] = {}
    for name, target, unit in (("score", 1, "score_change"), ("length", 2, "length_change_tokens")):
        gain = result.gain(0, target, batch=len(chunk))
        metrics[f"alignment/{unit}"] = gain.value
        metrics[f"alignment/{name}_z"] = gain.value / gain.error if gain.error > 0 else 0.0
        metrics[f"alignment/{'reward' if name == 'score' else name}_cosine"] = result.cosine(0, target).value
    return metrics


def surrogate_metrics(
    advantages: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    problem: Tensor,
    *,
    chunks: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """The same without the policy, from lengths alone: which way, and how sure (vcppo/maths/alignment_surrogate.py).

    Args:
        advantages, returns: [B, T] of the actor before whitening, and Monte-Carlo. problem: [B].
    Returns:
        `alignment/surrogate_score_z` and `alignment/surrogate_length_z`, 0 where lengths tell nothing; none of fewer
        than two chunks, or where all returns are alike.
    """
    chunk = chunks_of(problem, chunks)
    if not len(chunk) or int(chunk.max()) < 1 or are_alike(returns, response_mask):
        return {}
    truth = truth_advantages(returns, response_mask, problem, chunk, baseline=baseline_of(problem))
    kinds = torch.cat([advantages[None], truth]).double().numpy()
    gradients = later_length_gradients(kinds, response_mask.numpy(), chunk.numpy())
    result = Alignments(products_of(gradients), np.bincount(chunk.numpy()), rng=rng, resamples=500)
    gains = {name: result.gain(0, target, batch=len(chunk)) for name, target in (("score", 1), ("length", 2))}
    return {
        f"alignment/surrogate_{name}_z": gain.value / gain.error if gain.error > 0 else 0.0
        for name, gain in gains.items()
    }


def padded_to(batch: TokenBatch, x: Tensor) -> Tensor:
    """[.., B, T] numbers at a batch's width: zeros beyond, what stands under its mask's False cut."""
    width = batch.response_mask.shape[1]
    return torch.nn.functional.pad(x, (0, max(width - x.shape[-1], 0)))[..., :width]
