"""Small policies of every family with a decoder, and what transformers says of them."""

import torch
from tiny import decoder_of
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.types import Generation

VOCABULARY, END = 17, 1
RAGGED = [[5, 6], [3, 4, 5, 6, 7], [2], [9, 8, 7], [3, 3, 3, 3, 3, 3, 3]]
FREE = Sampling(temperature=1.0, top_p=1.0, max_tokens=12)


def model(kind: str = "llama", *, seed: int = 0, end: int = END, **options: object) -> PreTrainedModel:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY}
    config = AutoConfig.for_model(
        kind, **{**shape, **heads, "initializer_range": 0.4, "max_position_embeddings": 512, **options}
    )
    config.eos_token_id, config.bos_token_id, config.pad_token_id = end, None, 0
    return decoder_of(config, seed=seed)


def reference_logprobs(
    policy: PreTrainedModel, prompt: list[int], tokens: tuple[int, ...], temperature: float
) -> Tensor:
    """Of each generated token, from one plain forward pass over one row."""
    with torch.inference_mode():
        logits = policy(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0]
    rows = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
    return rows.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def assert_agrees(
    policy: PreTrainedModel, prompts: list[list[int]], responses: list[Generation], temperature: float
) -> None:
    for prompt, response in zip(prompts, responses, strict=True):
        want = reference_logprobs(policy, prompt, response.tokens, temperature)
        torch.testing.assert_close(torch.tensor(response.logprobs), want, rtol=1e-4, atol=1e-4)
