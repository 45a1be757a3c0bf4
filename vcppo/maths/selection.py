"""Selection of the sampled responses that are trained on: pruning, groups worth learning from, preference pairs."""

import math
from typing import Literal, assert_never

import torch
from torch import Tensor

Scope = Literal["question", "batch"]
Keep = Literal["largest", "smallest", "signed", "random"]


def prune(ranking: Tensor, group: Tensor, *, rate: float, scope: Scope, keep: Keep, rng: torch.Generator) -> Tensor:
    """CPPO's completion pruning (arXiv:2503.22342): the responses of largest |advantage|, before any forward pass.

    Of each question's G responses floor(G * (1 - rate)) stay, at least one; with scope "batch" the same share of all
    responses together, as the released code does it. Equal ranks fall in order of position.

    Args:
        ranking: [B] float, the advantage of each response, computed from its whole group.
        group: [B] int, equal for responses to the same question. rate: share to drop, in [0, 1).
        keep: "largest" or "smallest" |ranking|, largest "signed" ranking, or "random" ones, which alone draw from rng.
    Returns:
        [kept] int64, row numbers, ascending.
    """
    match keep:
        case "random":
            key = torch.rand(len(ranking), generator=rng, device=rng.device).to(ranking.device)
        case "largest":
            key = -ranking.abs()
        case "smallest":
            key = ranking.abs()
        case "signed":
            key = -ranking
        case _:
            assert_never(keep)
    match scope:
        case "question":
            pools = _rows_of_groups(group)
        case "batch":
            pools = [torch.arange(len(ranking), device=ranking.device)]
        case _:
            assert_never(scope)
    kept = [rows[key[rows].argsort(stable=True)[: kept_count(len(rows), rate=rate)]] for rows in pools]
    return torch.cat(kept).sort().values


def kept_count(size: int, *, rate: float) -> int:
    """Count the responses that pruning leaves of `size`: floor(size * (1 - rate)), at least 1.

    >>> kept_count(16, rate=0.875), kept_count(10, rate=0.8), kept_count(5, rate=0.5), kept_count(4, rate=0.9)
    (2, 2, 2, 1)
    """
    return max(1, math.floor(round(size * (1 - rate), 9)))  # 10 * (1 - 0.8) is 1.9999999999999996


def mixed_groups(correct: Tensor, group: Tensor) -> Tensor:
    """DAPO's dynamic sampling (arXiv:2503.14476, section 3.2): rows whose group is neither all correct nor all wrong.

    Args:
        correct: [B] bool. group: [B] int, equal for responses to the same question.
    Returns:
        [B] bool.

    >>> mixed_groups(torch.tensor([True, False, True, True]), torch.tensor([5, 5, 6, 6])).tolist()
    [True, True, False, False]
    """
    _, index = torch.unique(group, return_inverse=True)
    size = index.bincount()
    right = index[correct].bincount(minlength=len(size))
    mixed: Tensor = (right > 0) & (right < size)
    return mixed[index]


def preference_pairs(correct: Tensor, group: Tensor, *, rng: torch.Generator) -> Tensor:
    """Pairs for DPO (arXiv:2305.18290) from responses that were verified: a correct one preferred to a wrong one.

    A question gives as many pairs as its rarer kind has responses, and no response is in two of them.

    Args:
        correct: [B] bool. group: [B] int, equal for responses to the same question. rng: draws who meets whom.
    Returns:
        [pairs, 2] int64 row numbers, the chosen response first; questions in ascending order of their number.
    """
    pairs = [torch.empty(0, 2, dtype=torch.int64, device=correct.device)]
    for rows in _rows_of_groups(group):
        chosen, rejected = (_shuffled(rows[correct[rows] == kind], rng) for kind in (True, False))
        count = min(len(chosen), len(rejected))
        pairs.append(torch.stack([chosen[:count], rejected[:count]], dim=1))
    return torch.cat(pairs)


def _rows_of_groups(group: Tensor) -> list[Tensor]:
    """The row numbers of each group, ascending; groups in ascending order of their number."""
    _, index = torch.unique(group, return_inverse=True)
    sizes: list[int] = index.bincount().tolist()
    return list(index.argsort(stable=True).split(sizes))


def _shuffled(rows: Tensor, rng: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=rng, device=rng.device).to(rows.device)]
