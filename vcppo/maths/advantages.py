"""Advantages: GAE with its two lambdas, group baselines, sampled values of steps, frozen critics; whitening."""

import torch
from torch import Tensor

from vcppo.maths.masks import check_mask

CHUNK = 32  # columns summed by one small matrix product; longer rows recurse over chunks
CELLS_AT_ONCE = 2**18  # rows go through in blocks of about so many cells, which stay in a processor's cache


def discounted_suffix_sum(x: Tensor, decay: Tensor) -> Tensor:
    """S_t = sum_{l >= 0} decay^l x_{t+l}, for every column t at once.

    Rows are cut into chunks; within a chunk the sum is a product with a triangular matrix of powers, and the
    sums that cross chunks obey the same recurrence with decay^CHUNK, so the function calls itself on them:
    O(T * CHUNK) work in O(log T) Python steps, no loop over tokens.

    Args:
        x: [B, T] float. decay: [] or [B] float in [0, 1], one number for all rows or one a row.
    Returns:
        [B, T], same dtype as x.
    """
    rows, width = x.shape
    chunks = -(-width // CHUNK)
    size = width if chunks == 1 else CHUNK
    padded = torch.nn.functional.pad(x, (0, chunks * size - width)).view(rows, chunks, size)
    exponents = torch.arange(size + 1, device=x.device)
    powers = decay.to(x.dtype).reshape(-1, 1) ** exponents  # [B or 1, size + 1]; 0^0 = 1
    lag = exponents[:size, None] - exponents[None, :size]  # from column j to column i
    weights = torch.where(lag >= 0, powers[:, lag.clamp(min=0)], 0.0)  # [B or 1, size, size]
    sums = padded @ weights
    if chunks > 1:
        carried = discounted_suffix_sum(sums[:, :, 0], powers[:, size])  # the sum from each chunk's start onwards
        following = torch.nn.functional.pad(carried[:, 1:], (0, 1))
        sums.addcmul_(following[:, :, None], powers[:, 1:].flip(-1)[:, None, :])
    return sums.view(rows, -1)[:, :width]


def gae(rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, gae_lambda: float | Tensor) -> Tensor:
    """Generalized Advantage Estimation (arXiv:1506.02438, eq. 16).

    A_t = sum_l (gamma * lambda)^l delta_{t+l},   delta_t = r_t + gamma * V_{t+1} - V_t,
    with V = 0 after the last generated token: a response cut at the length limit counts as ended.
    Value targets are a second call with lambda_critic, plus the values (arXiv:2503.01491, algorithm 1).
    gae_lambda 0 is the one-step temporal difference r_t + gamma * V_{t+1} - V_t, which with deterministic transitions
    is Q - V: the centred form of DVPO's advantage (arXiv:2502.16944), `q_advantages` being the other.

    The same as `gae_by_recursion`, all tokens at once; from a row's last token backwards that is

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lambda * A_{t+1}

    Args:
        rewards, values: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        gae_lambda: one number, or [B] for one a row (length-adaptive lambda).
    Returns:
        [B, T] advantages in units of reward, not normalised, 0 where the mask is False.
    Raises:
        DataError: the mask is not of torch.bool.
    """
    check_mask(response_mask)
    decay = gamma * torch.as_tensor(gae_lambda, dtype=values.dtype, device=values.device)
    rows, width = values.shape
    block = max(1, CELLS_AT_ONCE // width)
    advantages = torch.empty_like(values)
    for rows_here in (slice(start, start + block) for start in range(0, rows, block)):
        live = response_mask[rows_here]
        live_values = torch.where(live, values[rows_here], 0.0)
        next_values = torch.nn.functional.pad(live_values[:, 1:], (0, 1))
        deltas = torch.where(live, rewards[rows_here] + gamma * next_values - live_values, 0.0)
        # Past a row's end every delta is 0, and so is every sum of them: the mask need not be applied again.
        advantages[rows_here] = discounted_suffix_sum(deltas, decay[rows_here] if decay.dim() else decay)
    return advantages


def gae_by_recursion(
    rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, gae_lambda: float | Tensor
) -> Tensor:
    """The reference for `gae`: the textbook's recursion, column by column from the last (arXiv:1506.02438, eq. 16).

    For reading and for tests: it loops over tokens. Arguments and result are those of `gae`.

    >>> ones = torch.ones(1, 3)
    >>> gae_by_recursion(ones, 0 * ones, ones.bool(), gamma=0.5, gae_lambda=1.0)
    tensor([[1.7500, 1.5000, 1.0000]])
    """
    advantages = torch.zeros_like(values)
    next_value = next_advantage = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        live = response_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(live, delta + gamma * gae_lambda * next_advantage, 0.0)
        next_value = torch.where(live, values[:, t], 0.0)
        advantages[:, t] = next_advantage
    return advantages


def monte_carlo_returns(rewards: Tensor, response_mask: Tensor, *, gamma: float) -> Tensor:
    """G_t = sum_l gamma^l r_{t+l}: what really came after token t, with no value in it.

    Explained variance and every critic diagnostic are measured against this, whatever lambda the critic learns with.

    Args:
        rewards: [B, T] float. response_mask: [B, T] bool.
    Returns:
        [B, T], 0 where the mask is False.
    """
    return gae(rewards, torch.zeros_like(rewards), response_mask, gamma=gamma, gae_lambda=1.0)


def length_adaptive_lambda(response_mask: Tensor, *, alpha: float) -> Tensor:
    """lambda = 1 - 1 / (alpha * l) for a response of l tokens (VAPO, arXiv:2504.05118, section 4.2), kept in [0, 1].

    The paper leaves short responses open: alpha * l < 1 would be a negative lambda, here it is 0.

    Args:
        response_mask: [B, T] bool. alpha: 0.05 in VAPO.
    Returns:
        [B] float32.
    """
    lengths = response_mask.sum(dim=1).to(torch.float32)
    return 1.0 - 1.0 / (alpha * lengths).clamp(min=1.0)


def group_advantages(scores: Tensor, group: Tensor, response_mask: Tensor, *, scale: bool) -> Tensor:
    """GRPO (arXiv:2402.03300): each response's score against the others to its prompt, the same on every token.

    A = (R - mean) / (std + 1e-6) within the group, with the unbiased std; `scale=False` leaves the division out
    (Dr. GRPO, arXiv:2503.20783). A group of one, or one whose scores are all equal, has advantage 0.

    Args:
        scores: [B] float. group: [B] int, equal for responses to the same prompt. response_mask: [B, T] bool.
    Returns:
        [B, T], 0 where the mask is False.
    """
    centred, index, count = _centred_in_group(scores, group)
    if scale:
        variance = torch.zeros_like(count).index_add(0, index, centred**2) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt()[index] + 1e-6)
    return torch.where(response_mask, centred[:, None], 0.0)


def rloo_advantages(scores: Tensor, group: Tensor, response_mask: Tensor) -> Tensor:
    """REINFORCE leave-one-out (arXiv:2402.14740): A_i = R_i - mean of the other responses' scores to the same prompt.

    That is n / (n - 1) * (R_i - mean of all n), since a baseline without R_i in it takes nothing of R_i away:
    its expected gradient is the policy gradient, Dr. GRPO's is (n - 1) / n of it. A group of one has advantage 0.

    Args:
        scores: [B] float. group: [B] int, equal for responses to the same prompt. response_mask: [B, T] bool.
    Returns:
        [B, T], the same on every token, 0 where the mask is False.
    """
    centred, index, count = _centred_in_group(scores, group)
    stretch = count / (count - 1).clamp(min=1)
    return torch.where(response_mask, (stretch[index] * centred)[:, None], 0.0)


def _centred_in_group(scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B] scores minus their group's mean, [B] which group that is, counted from 0, [groups] their sizes."""
    _, index = torch.unique(group, return_inverse=True)
    count = torch.zeros(int(index.max()) + 1, dtype=scores.dtype, device=scores.device)
    count = count.index_add(0, index, torch.ones_like(scores))
    lowest = torch.full_like(count, torch.inf).scatter_reduce(0, index, scores, "amin")
    above = scores - lowest[index]  # exactly 0 where all are equal, so that no rounding is divided by its own std
    centred = above - (torch.zeros_like(count).index_add(0, index, above) / count)[index]
    return centred, index, count


def segment_advantages(rewards: Tensor, segment_values: Tensor, segments: Tensor, response_mask: Tensor) -> Tensor:
    """VinePPO (arXiv:2410.01679): the advantage of a step of reasoning, the same on each of its tokens.

    A_j = (sum of the rewards in step j) + V(s_{j+1}) - V(s_j), with V = 0 after a row's last step and no discount.
    The steps' advantages add up to R - V(s_0) whatever the values, so noise in them moves credit between steps only.

    Args:
        rewards: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        segments: [B, T] int64, which step a token is in: 0 first, never falling along a row, none left out;
            what stands under False is not read.
        segment_values: [B, J] float, V of the state in which step j begins (column 0: the prompt), in VinePPO the
            mean score of K continuations; what stands beyond a row's last step is not read.
    Returns:
        [B, T], 0 where the mask is False.
    """
    step = torch.where(response_mask, segments, 0)
    begun = torch.arange(segment_values.shape[1], device=step.device) <= step.amax(dim=1, keepdim=True)
    value = torch.where(begun, segment_values, 0.0)
    following = torch.nn.functional.pad(value[:, 1:], (0, 1))
    earned = torch.zeros_like(value).scatter_add(1, step, torch.where(response_mask, rewards, 0.0))
    return torch.where(response_mask, (earned + following - value).gather(1, step), 0.0)


def q_advantages(rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float) -> Tensor:
    """DVPO as its paper states it (arXiv:2502.16944): A_t = Q(s_t, a_t) = r_t + gamma * V(s_{t+1}), no baseline.

    Transitions are deterministic, so a critic of states gives Q too; V = 0 after the last generated token, where
    only the reward is left. Not centred: whiten it.

    Args:
        rewards, values: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
    Returns:
        [B, T], 0 where the mask is False.
    """
    live_values = torch.where(response_mask, values, 0.0)
    following = torch.nn.functional.pad(live_values[:, 1:], (0, 1))
    return torch.where(response_mask, rewards + gamma * following, 0.0)


def released_dvpo_advantages(values: Tensor, penalties: Tensor, response_mask: Tensor, *, gae_lambda: float) -> Tensor:
    """DVPO as its released code computes it (microsoft/DKI_LLM at c090b7d, not as arXiv:2502.16944 states it).

    V is whitened within each response, no score is placed on the last token, V = 0 after it, and gamma is 1. With the
    whitened values W and without penalties that is

        A_t = -W_t + (1 - lambda) * sum_{l >= 1} lambda^(l - 1) W_{t+l},

    so at lambda = 1 a response's level is gone and its advantage is -W_t, whatever token was chosen. The code's
    whitening also counts the prompt's and the padding's positions; here it is the response's own tokens.

    Args:
        values: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        penalties: [B, T] float, what the reward of a token is: -beta * k1, zeros without KL penalty.
    Returns:
        [B, T], not whitened over the batch, 0 where the mask is False.
    """
    return gae(penalties, whiten_rows(values, response_mask), response_mask, gamma=1.0, gae_lambda=gae_lambda)


def whiten(x: Tensor, response_mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Mean 0 and standard deviation 1 over all True cells together; False cells become 0.

    Bessel-corrected variance plus 1e-8, as in verl's `masked_whiten`; a single True cell is centred only.

    Args:
        x: [B, T] float. response_mask: [B, T] bool, at least one True.
    """
    count = response_mask.sum()
    live = torch.where(response_mask, x, 0.0)
    mean = live.sum() / count
    variance = torch.where(response_mask, live - mean, 0.0).square().sum() / (count - 1).clamp(min=1)
    scaled = (live - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(response_mask, scaled if shift_mean else scaled + mean, 0.0)


def whiten_rows(x: Tensor, response_mask: Tensor) -> Tensor:
    """`whiten` of each row by itself: mean 0 and standard deviation 1 over its True cells, False cells 0.

    Args:
        x: [B, T] float. response_mask: [B, T] bool, at least one True in each row.
    """
    count = response_mask.sum(dim=1, keepdim=True)
    live = torch.where(response_mask, x, 0.0)
    centred = torch.where(response_mask, live - live.sum(dim=1, keepdim=True) / count, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)
