"""Advantages and value targets: GAE with its two lambdas, length-adaptive lambda, group baselines, whitening."""

import torch
from torch import Tensor

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

    Args:
        rewards, values: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        gae_lambda: one number, or [B] for one a row (length-adaptive lambda).
    Returns:
        [B, T] advantages in units of reward, not normalised, 0 where the mask is False.
    """
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

    The paper leaves short answers open: alpha * l < 1 would be a negative lambda, here it is 0.

    Args:
        response_mask: [B, T] bool. alpha: 0.05 in VAPO.
    Returns:
        [B] float32.
    """
    lengths = response_mask.sum(dim=1).to(torch.float32)
    return 1.0 - 1.0 / (alpha * lengths).clamp(min=1.0)


def group_advantages(scores: Tensor, group: Tensor, response_mask: Tensor, *, scale: bool) -> Tensor:
    """GRPO (arXiv:2402.03300): each answer's score against the other answers to its prompt, the same on every token.

    A = (R - mean) / (std + 1e-6) within the group, with the unbiased std; `scale=False` leaves the division out
    (Dr. GRPO, arXiv:2503.20783). A group of one, or one whose scores are all equal, has advantage 0.

    Args:
        scores: [B] float. group: [B] int, equal for answers to the same prompt. response_mask: [B, T] bool.
    Returns:
        [B, T], 0 where the mask is False.
    """
    _, index = torch.unique(group, return_inverse=True)
    count = torch.zeros(int(index.max()) + 1, dtype=scores.dtype, device=scores.device)
    count = count.index_add(0, index, torch.ones_like(scores))
    lowest = torch.full_like(count, torch.inf).scatter_reduce(0, index, scores, "amin")
    above = scores - lowest[index]  # exactly 0 where all are equal, so that no rounding is divided by its own std
    centred = above - (torch.zeros_like(count).index_add(0, index, above) / count)[index]
    if scale:
        variance = torch.zeros_like(count).index_add(0, index, centred**2) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt()[index] + 1e-6)
    return torch.where(response_mask, centred[:, None], 0.0)


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
