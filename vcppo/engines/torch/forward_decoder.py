"""Any causal language model, written by its own forward passes: slower than `Decoder`, which knows few families.

The same batch, step by step, as `Decoder`, so responses, seeds and log-probabilities come about alike; keys and values
are in the cache that transformers' `generate` would make for the model.
"""

import inspect
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from vcppo.errors import CheckpointError
from vcppo.models.configurations import positions

NEEDED = ("attention_mask", "past_key_values")  # arguments of a forward pass that goes on from one before


class ForwardDecoder:
    """See `Decoder`; the weights are the model's own, not copies.

    Raises:
        CheckpointError: the model's passes do not go on from a cache of keys and values.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        self._arguments = inspect.signature(policy.forward).parameters
        if missing := [name for name in NEEDED if name not in self._arguments]:
            raise CheckpointError(
                f"{policy.config.model_type}: its forward passes take no {missing[0]}, so the torch engine cannot "
                "decode it; expected a decoder with attention, or engine.kind = vllm"
            )
        self._policy = policy
        self._last = (positions(policy.config) or sys.maxsize) - 1
        self.device = policy.get_input_embeddings().weight.device
        self.forget()

    def start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Read the prompts; [B, V] logits of the first generated token. The cache grows with every step."""
        size = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), size), dtype=torch.int64)
        self._mask = torch.zeros_like(ids, device=self.device)
        for row, prompt in enumerate(prompts):
            ids[row, size - len(prompt) :] = torch.tensor(list(prompt))
            self._mask[row, size - len(prompt) :] = 1
        self._cache = DynamicCache(config=self._policy.config)
        return self._forward(ids.to(self.device), (self._mask.cumsum(dim=1) - 1).clamp(min=0))

    def read(self, stems: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The stems as they are: `fork` reads each prefix anew."""
        return stems

    def fork(self, stems: Sequence[Sequence[int]], owners: Tensor, lengths: Tensor, *, room: int) -> Tensor:
        """See `Decoder.fork`."""
        pairs = zip(owners.tolist(), lengths.tolist(), strict=True)
        return self.start([stems[owner][:length] for owner, length in pairs], room=room)

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token per row; [B, V] logits of the next."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        place = self._mask.sum(dim=1, keepdim=True) - 1
        # A row that has ended stays for a while: what it goes on to write is cut, but learned positions have an end.
        return self._forward(tokens[:, None], place.clamp(max=self._last))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these ([B] bool)."""
        self.take(rows.nonzero()[:, 0])

    def take(self, indices: Tensor) -> None:
        """See `Decoder.take`."""
        self._cache.batch_select_indices(indices)
        self._mask = self._mask[indices]

    def forget(self) -> None:
        """Free the batch."""
        self._cache, self._mask = DynamicCache(), torch.zeros((0, 0), dtype=torch.int64, device=self.device)

    def _forward(self, ids: Tensor, position_ids: Tensor) -> Tensor:
        """Append [B, count] tokens at [B, count] positions; [B, V] float32 logits after the last.

        In evaluation mode: with gradient checkpointing a model is in training mode, in which transformers drops the
        cache without a word. No dropout is on in either.
        """
        offered = {"position_ids": position_ids, "logits_to_keep": 1}
        taken = {name: value for name, value in offered.items() if name in self._arguments}
        training = self._policy.training
        if training:  # to look through all modules takes time, at each token
            self._policy.eval()
        try:
            logits: Tensor = self._policy(
                input_ids=ids, attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **taken
            ).logits
        finally:
            if training:
                self._policy.train()
        return logits[:, -1].float()
