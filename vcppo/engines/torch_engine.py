"""The engine that needs nothing but torch: one batch, one key/value cache, few kernels a token.

The transformers module is read once after each weight update into fused matrices; a step of decoding then costs
about twenty small kernels a layer. Rows that have ended are dropped from the batch. Every answer has its own stream
of uniform numbers, so what it says does not depend on its company or on when others are dropped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.decoder import Decoder
from vcppo.types import Generation

KEEP = 0.75  # the batch is compacted when fewer than this share of its rows are still being written
UNWRITTEN = -1


class TorchEngine:
    """Samples with a `Decoder` in this process."""

    def __init__(self, policy: PreTrainedModel) -> None:
        self.update_weights(policy)

    def update_weights(self, policy: PreTrainedModel) -> None:
        """See Engine."""
        self._decoder = Decoder(policy)
        self._end = policy.config.eos_token_id

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int) -> list[Generation]:
        """See Engine."""
        decoder, device, limit = self._decoder, self._decoder.device, sampling.max_tokens
        rng = torch.Generator().manual_seed(seed)
        uniforms = torch.rand((len(prompts), limit), generator=rng).T.contiguous().to(device)  # [limit, B]
        tokens = torch.full((limit, len(prompts)), UNWRITTEN, device=device)
        logprobs = torch.zeros((limit, len(prompts)), device=device)

        rows = torch.arange(len(prompts), device=device)  # which answers the batch still holds
        ended = torch.zeros_like(rows, dtype=torch.bool)  # which of them have ended; what they go on to say is cut
        logits = decoder.start(prompts, room=limit)
        for t in range(limit):
            chosen, chosen_logprobs = sample(logits, uniforms[t, rows], sampling)
            tokens[t, rows], logprobs[t, rows] = chosen, chosen_logprobs
            ended |= chosen == self._end
            live = len(rows) - int(ended.sum())
            if live == 0 or t + 1 == limit:
                break
            if live < KEEP * len(rows):
                kept = ~ended
                rows, chosen, ended = rows[kept], chosen[kept], ended[kept]
                decoder.keep(kept)
            logits = decoder.step(chosen)
        return [_answer(i, p, self._end) for i, p in zip(tokens.T.tolist(), logprobs.T.tolist(), strict=True)]


def sample(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution at `uniforms`.

    Args:
        logits: [B, V]. uniforms: [B] in [0, 1).
    Returns:
        ([B] tokens, [B] log-probabilities at the temperature, before any nucleus cut).
    """
    all_logprobs = torch.log_softmax(logits / sampling.temperature, dim=-1)
    weights = all_logprobs.exp()
    if sampling.top_p < 1.0:
        ordered, order = weights.sort(dim=-1, descending=True)
        outside = (ordered.cumsum(dim=-1) - ordered >= sampling.top_p).gather(1, order.argsort(dim=-1))
        weights = weights.masked_fill(outside, 0.0)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    point = torch.minimum(uniforms * total, total.nextafter(torch.zeros_like(total)))  # rounding must not reach total
    chosen = torch.searchsorted(cumulative, point[:, None], right=True)
    return chosen[:, 0], all_logprobs.gather(1, chosen)[:, 0]


def _answer(tokens: list[int], logprobs: list[float], end: int) -> Generation:
    """What stands up to the first end of sequence, that one included."""
    if end in tokens:
        length = tokens.index(end) + 1
        return Generation(tuple(tokens[:length]), tuple(logprobs[:length]), "stop")
    return Generation(tuple(tokens), tuple(logprobs), "length")
