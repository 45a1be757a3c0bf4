"""Policies and critics: stock transformers models, loaded and saved in their own format.

All of them stay in evaluation mode, in training too: dropout would draw from a global state, and the ratio of a policy
to itself would not be 1.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from vcppo.config import ModelSettings
from vcppo.errors import CheckpointError
from vcppo.seeding import seed_for
from vcppo.types import RolloutBatch

GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")  # classes of tokenizers that tokenizer.json says all about

logging.set_verbosity_error()
logging.disable_progress_bar()


def new_policy(
    settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, *, max_length: int, seed: int
) -> PreTrainedModel:
    """A causal language model with random weights that depend on `seed` alone."""
    config = AutoConfig.for_model(
        settings.architecture,
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.hidden_size // settings.heads,
        max_position_embeddings=max_length,
        initializer_range=settings.initializer_range,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "weights"))
        return AutoModelForCausalLM.from_config(config).eval()


def load_policy(path: Path | str) -> PreTrainedModel:
    """A saved causal language model, in evaluation mode.

    Raises:
        CheckpointError: nothing loadable is there.
    """
    return _load(AutoModelForCausalLM, path, "a causal language model")


def load_critic(path: Path | str, *, head_seed: int | None = None) -> PreTrainedModel:
    """A token classifier with one label from a saved critic, or, given `head_seed`, from any checkpoint.

    A new head is drawn with standard deviation 1 / (width + 1): the first values lie near 0 whatever the width.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if head_seed is None else head_seed)
        new = () if head_seed is None else ("score.", "classifier.")
        critic = _load(AutoModelForTokenClassification, path, "a critic", new, num_labels=1, classifier_dropout=0.0)
        head = value_head(critic)
        if head_seed is not None:
            torch.nn.init.normal_(head.weight, std=1.0 / (head.in_features + 1))
            torch.nn.init.zeros_(head.bias)
    return critic


def named_weights(policy: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight once, named as in the checkpoint; of several names for one tensor, the first."""
    seen: set[int] = set()
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor.detach()


def value_head(critic: PreTrainedModel) -> torch.nn.Linear:
    """The layer that turns a hidden state into a value."""
    for name in ("score", "classifier"):
        head = getattr(critic, name, None)
        if isinstance(head, torch.nn.Linear) and head.out_features == 1:
            return head
    raise CheckpointError(
        f"{type(critic).__name__}: no head with one output, expected a token classifier with one label"
    )


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerFast:
    """The fast tokenizer that was saved with a policy.

    One that was saved as no model's in particular is loaded as such: AutoTokenizer would go by the policy's type, and
    for Qwen2 split the text in another way.
    """
    _check_folder(path)
    kind = PreTrainedTokenizerFast if _is_of_no_model(Path(path)) else AutoTokenizer
    try:
        return kind.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no tokenizer there ({_first_line(error)})") from None


def _is_of_no_model(path: Path) -> bool:
    try:
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return config.get("tokenizer_class") in GENERIC and (path / "tokenizer.json").exists()


def response_logits(policy: PreTrainedModel, batch: RolloutBatch, temperature: float) -> Tensor:
    """[N, V] float32 logits over each generated token's place, N = True cells of response_mask in row order.

    Padding stands on the right and attention is causal, so no generated token sees it and no mask is needed.
    """
    hidden = policy.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    logits = policy.get_output_embeddings()(_before_each_token(hidden, batch)[batch.response_mask])
    scaled: Tensor = logits.float() / temperature
    return scaled


def response_logprobs(logits: Tensor, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """([B, T] log-probability of each generated token, [B, T] entropy of its place), nats; 0 where masked."""
    all_logprobs = torch.log_softmax(logits, dim=-1)
    chosen = all_logprobs.gather(1, batch.response_tokens[batch.response_mask][:, None])[:, 0]
    entropy = -(all_logprobs.exp() * all_logprobs).sum(dim=-1)
    blank = logits.new_zeros(batch.response_mask.shape)
    return blank.masked_scatter(batch.response_mask, chosen), blank.masked_scatter(batch.response_mask, entropy)


def response_values(critic: PreTrainedModel, batch: RolloutBatch) -> Tensor:
    """[B, T] float32: V(s_t), read from the token before the t-th generated one; 0 where masked."""
    values = critic(input_ids=batch.input_ids, use_cache=False).logits[..., 0].float()
    return torch.where(batch.response_mask, _before_each_token(values, batch), 0.0)


def last_token_values(critic: PreTrainedModel, batch: RolloutBatch) -> Tensor:
    """[B] float32: the value read from each answer's last token, where a reward model scores."""
    values = critic(input_ids=batch.input_ids, use_cache=False).logits[..., 0].float()
    last = batch.prompt_lengths + batch.lengths - 1
    scores: Tensor = values.gather(1, last[:, None])[:, 0]
    return scores


def _before_each_token(x: Tensor, batch: RolloutBatch) -> Tensor:
    """[B, S, ...] to [B, T, ...]: column t holds the place from which the t-th generated token was chosen."""
    columns = batch.prompt_lengths[:, None] - 1 + torch.arange(batch.response_mask.shape[1], device=x.device)
    columns = columns.clamp(max=x.shape[1] - 1)
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x[rows, columns]


def _check_folder(path: Path | str) -> None:
    """A Path, or a string that can only be one, must exist; anything else may be a hub's name."""
    local = isinstance(path, Path) or str(path).startswith((".", "/", "~"))
    if local and not (Path(path) / "config.json").exists():
        raise CheckpointError(f"{path}: no config.json there, expected a folder in transformers format")


def _load(kind: Any, path: Path | str, what: str, new: tuple[str, ...] = (), **options: Any) -> PreTrainedModel:
    """A model whose weights all come from the checkpoint, but for those whose names begin with one of `new`."""
    _check_folder(path)
    try:
        config = AutoConfig.from_pretrained(str(path))
        config.update(options)
        model, info = kind.from_pretrained(
            str(path), config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected {what} in transformers format ({_first_line(error)})") from None
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(new))
    if missing:
        raise CheckpointError(f"{path}: expected {what}, but {len(missing)} of its weights are missing: {missing[0]}")
    return model.eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
