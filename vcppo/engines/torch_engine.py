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
        decoder, device = self._decoder, self._decoder.device
        rng = torch.Generator().manual_seed(seed)
        uniforms = torch.rand((len(prompts), sampling.max_tokens), generator=rng).to(device)
        tokens = torch.zeros((sampling.max_tokens, len(prompts)), dtype=torch.int64, device=device)
        logprobs = torch.zeros((sampling.max_tokens, len(prompts)), device=device)
        lengths = torch.full((len(prompts),), sampling.max_tokens, device=device)
        finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)

        rows = torch.arange(len(prompts), device=device)  # which answers the batch still holds
        logits = decoder.start(prompts, room=sampling.max_tokens)
        for t in range(sampling.max_tokens):
            chosen, chosen_logprobs = sample(logits, uniforms[rows, t], sampling)
            tokens[t, rows], logprobs[t, rows] = chosen, chosen_logprobs
            ended = chosen == self._end
            if bool(ended.any()):
                fresh = rows[ended & ~finished[rows]]
                finished[fresh], lengths[fresh] = True, t + 1
                live = ~finished[rows]
                if not bool(live.any()):
                    break
                if int(live.sum()) < KEEP * len(rows):
                    rows, chosen = rows[live], chosen[live]
                    decoder.keep(live)
            if t + 1 < sampling.max_tokens:
                logits = decoder.step(chosen)
        answers = zip(tokens.T.tolist(), logprobs.T.tolist(), lengths.tolist(), finished.tolist(), strict=True)
        return [Generation(tuple(i[:n]), tuple(p[:n]), "stop" if done else "length") for i, p, n, done in answers]


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
    point = uniforms * cumulative[:, -1]
    chosen = (cumulative <= point[:, None]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return chosen, all_logprobs.gather(1, chosen[:, None])[:, 0]
