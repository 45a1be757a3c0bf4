"""Exact values: the chance of success from every state of a response, by dynamic programming along its decisions.

R ways, L places of the longest. A way has one token at a time; at each place it goes on, with so many errors added,
or is left: for somewhere of known worth, or for good, which is a failure. W_t(e), the chance that a response is judged
correct that has come to place t with e errors:

    W_L(e) = right(e),   W_t(e) = sum_k on_t(k) W_{t+1}(e + k) + exits_t + failed * (1 - what goes on or exits)

K is one more than the errors that a token may add; E are the numbers of errors that are told apart, of which the last
stands for itself and all above. Everything is differentiable in the chances.
"""

import torch
from torch import Tensor


def chances_of_success(on: Tensor, exits: Tensor, right: Tensor, failed: Tensor) -> Tensor:
    """W_t(e) of the module's equation, at every place and for every number of errors.

    Args:
        on: [R, L, K] float, chance that a way goes on from a place with k errors more; beyond a way's end 1 for k = 0.
        exits: [R, L] float, sum over a place's exits of their chance times (what they are worth - `failed`); beyond a
            way's end 0.
        right: [R, E] float, chance that a response at its way's end with e errors is judged correct.
        failed: [R] float, the same of one that has left its way other than by an exit.
    Returns:
        [R, L + 1, E] float; column t is before the token at place t, the last one after the end.
    """
    errors, more = torch.arange(right.shape[1]), torch.arange(on.shape[2])
    after = (errors + more[:, None]).clamp(max=len(errors) - 1)  # [K, E] the number of errors that they come to
    above = right - failed[:, None]  # how much likelier than after a failure
    backwards = [above]
    for t in reversed(range(on.shape[1])):
        above = (on[:, t, :, None] * above[:, after]).sum(dim=1) + exits[:, t, None]
        backwards.append(above)
    return torch.stack(backwards[::-1], dim=1) + failed[:, None, None]


def error_shares(on: Tensor, count: int) -> Tensor:
    """Return the chance of each number of errors before each place, of a response that is still on its way.

    Args:
        on: as in `chances_of_success`. count: E.
    Returns:
        [R, L + 1, E] float, sums of 1; what is known before a place that cannot be reached is known after it.
    """
    rows, places, most = on.shape
    shares = on.new_zeros((rows, count))
    shares[:, 0] = 1.0
    forwards = [shares]
    for t in range(places):
        reached = torch.zeros_like(shares)
        for k in range(most):
            after = (torch.arange(count) + k).clamp(max=count - 1)
            reached = reached.index_add(1, after, on[:, t, k, None] * shares)
        total = reached.sum(dim=1, keepdim=True)
        shares = torch.where(total > 0, reached / torch.where(total > 0, total, 1.0), shares)
        forwards.append(shares)
    return torch.stack(forwards, dim=1)


def limited_sight(values: Tensor, response_mask: Tensor, *, sight: float) -> Tensor:
    """Values of a critic that tells states apart less than it could: a blind one knows a token's position alone.

    A response's own values are not in the mean that replaces them: of eight responses they would be an eighth of it,
    and so much of what the response did would be seen.

    Args:
        values: [B, T] float. response_mask: [B, T] bool.
        sight: weight of the values; the rest is that of their mean over the other responses that have the position, or
            over all of the others' tokens where none has.
    Returns:
        [B, T], 0 where the mask is False.
    """
    masked = torch.where(response_mask, values, 0.0)
    others, count = masked.sum(dim=0) - masked, response_mask.sum(dim=0) - response_mask.int()
    elsewhere, tokens = masked.sum() - masked.sum(dim=1), response_mask.sum() - response_mask.sum(dim=1)
    fallback = (elsewhere / tokens.clamp(min=1))[:, None]
    mean = torch.where(count > 0, others / count.clamp(min=1), fallback)
    return torch.where(response_mask, sight * masked + (1.0 - sight) * mean, 0.0)
