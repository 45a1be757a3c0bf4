"""Policies and critics: stock transformers models, loaded and saved in transformers' format.

All of them stay in evaluation mode, in training too: dropout would draw from a global state, and the ratio of a policy
to itself would not be 1.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers.utils import logging

from vcppo.errors import CheckpointError, ConfigError, first_line
from vcppo.models.configurations import positions
from vcppo.models.critic_folders import CriticFolder, find_folder, weight_files
from vcppo.models.critic_kinds import classifier_of, saved_classifier
from vcppo.models.critic_layouts import CriticLayout, find_layout, put_head
from vcppo.models.distributed import world
from vcppo.models.forward import check_plain_logits, value_head
from vcppo.models.limits import Room
from vcppo.models.remote_code import failure_of_code
from vcppo.models.response_ends import name_ends
from vcppo.seeding import seed_for
from vcppo.settings.critic import NewCriticSettings
from vcppo.settings.critic_size import Size, size_of
from vcppo.settings.engine import EngineSettings
from vcppo.settings.model import ModelSettings

CRITIC = "a critic, which is a token or sequence classifier with one label"
BY_LAYER = ("layer_types", "max_window_layers", "architectures")  # of a configuration: made anew for other layers
GENERIC = (
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
)  # classes of tokenizers that tokenizer.json describes completely

logging.set_verbosity_error()
logging.disable_progress_bar()


def new_policy(
    settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, *, max_length: int, seed: int
) -> PreTrainedModel:
    """Build a causal language model with random weights that depend on `seed` alone."""
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
        tie_word_embeddings=settings.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "weights"))
        return AutoModelForCausalLM.from_config(config).eval()


def room_of(path: Path | str, engine: EngineSettings, *, trust_remote_code: bool = False) -> Room:
    """Tokens that a prompt and its response may have together in a saved model, and under the engine's limit.

    Raises:
        CheckpointError: there is no model.
    """
    room = Room.of_model(str(path), positions(load_config(path, trust_remote_code=trust_remote_code)))
    return room.smaller(Room.of_engine(engine.max_length)) if engine.kind == "vllm" else room


def load_policy(path: Path | str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode; of several processes only the main one reads weights.

    Its configuration names every token that ends a response, the end of the tokenizer beside it among them.

    Raises:
        CheckpointError: nothing loadable is there, its weights are not finite, its tokenizer's end is not in its
            vocabulary, or its logits are more than a product with its output head.
    """
    what = "a causal language model"
    config = load_config(path, what, trust_remote_code=trust_remote_code)
    policy = _load(AutoModelForCausalLM, config, path, what, trust_remote_code=trust_remote_code)
    if not world().is_main:
        policy.generation_config = _generation_of(path) or policy.generation_config
    if world().is_main:
        check_plain_logits(policy, path)
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    known = policy.get_input_embeddings().num_embeddings
    if tokenizer.eos_token_id >= known:
        raise CheckpointError(
            f"{path}: its tokenizer ends a response with token {tokenizer.eos_token_id} ({tokenizer.eos_token}), its "
            f"policy knows {known} tokens; expected the tokenizer that belongs to it"
        )
    name_ends(policy, tokenizer)
    return policy


def _generation_of(path: Path | str) -> GenerationConfig | None:
    """The `generation_config` saved with a model, if any; from_pretrained reads it, from_config does not."""
    try:
        return GenerationConfig.from_pretrained(str(path))
    except OSError:
        return None


def load_critic(
    path: Path | str,
    *,
    head_seed: int | None = None,
    initial_value: float = 0.0,
    bounds: tuple[float, float] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a saved critic, a classifier with one label, or, given `head_seed`, a token classifier from any checkpoint.

    Saved critics are of both kinds that transformers has: ours are token classifiers, reward models of others mostly
    sequence classifiers, whose head has no bias and can be applied after every token too. Each stays of its kind. One
    with a value head of another trainer's (`critic_layouts`) becomes a token classifier of the same values.

    A new head is drawn with standard deviation 1 / (width + 1): the first values lie near `initial_value` whatever
    the width, where transformers' initial values spread with the root of it (verl issue 498: from -16 to 14).

    Args:
        bounds: values are squeezed between these two, now and whenever the critic is loaded again.
    Raises:
        CheckpointError: nothing loadable is there, its weights are not finite, it has no head with one output, or it
            attends to what follows a token.
    """
    folder = find_folder(path) if head_seed is None else CriticFolder(path, path)
    config = load_config(folder.weights, CRITIC, trust_remote_code=trust_remote_code)
    _refuse_to_look_ahead(config, path)
    if head_seed is None:
        kind = saved_classifier(config, frozenset(weight_files(folder.weights)), path)
        layout = find_layout(folder, path)
    else:
        kind, layout = classifier_of(config, path), CriticLayout("none")
    head = layout.head
    if head is not None:
        kind = classifier_of(config, path, biased=head.has_bias)
    new = ("score.", "classifier.") if head is not None or head_seed is not None else ()
    config.update({"num_labels": 1, "classifier_dropout": 0.0})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if head_seed is None else head_seed)
        critic = _load(kind, config, folder.weights, CRITIC, new, layout.renamed, trust_remote_code=trust_remote_code)
        if bounds is not None:
            critic.config.value_range = list(bounds)
        if head_seed is not None:
            _draw_head(critic, initial_value, bounds)
        elif head is not None:
            put_head(critic, head, path)
    return critic


def new_critic(
    policy: Path | str,
    critic: NewCriticSettings,
    *,
    seed: int,
    initial_value: float = 0.0,
    bounds: tuple[float, float] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Build a critic with random weights, of the policy's architecture and vocabulary and a size of its own.

    Weights depend on `seed` alone, and spread as the policy's configuration says; the head is drawn as `load_critic`
    draws one.

    Raises:
        CheckpointError: there is no policy, or it attends to what follows a token.
        ConfigError: heads and width of the critic do not fit.
    """
    config = load_config(policy, trust_remote_code=trust_remote_code)
    _refuse_to_look_ahead(config, policy)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    size = size_of(
        critic,
        Size(config.hidden_size, config.intermediate_size, config.num_hidden_layers, heads, kv_heads, head_dim),
    )
    if size.misfit is not None:
        raise ConfigError(size.misfit)
    sized = {
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "num_labels": 1,
        "classifier_dropout": 0.0,
    }
    named = {key: value for key, value in config.to_dict().items() if key not in BY_LAYER}
    config = type(config)(**{**named, **sized})
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if world().is_main else "meta"):
        torch.manual_seed(seed)
        kind = classifier_of(config, policy)
        try:
            made: PreTrainedModel = kind.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
        except (ImportError, SyntaxError) as error:
            raise failure_of_code(error, policy) from None
        if bounds is not None:
            made.config.value_range = list(bounds)
        _draw_head(made, initial_value, bounds)
    return made.eval()


def _draw_head(critic: PreTrainedModel, initial_value: float, bounds: tuple[float, float] | None) -> None:
    head = value_head(critic)
    torch.nn.init.normal_(head.weight, std=1.0 / (head.in_features + 1))
    torch.nn.init.constant_(head.bias, initial_value if bounds is None else _logit(initial_value, bounds))


def _refuse_to_look_ahead(config: PretrainedConfig, path: Path | str) -> None:
    """Refuse models without causal attention: a value is of the tokens so far, and encoders see those that follow."""
    kind, decodes = config.model_type, getattr(config, "is_decoder", False)
    both_ways = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not decodes
    never_causal = kind in MODEL_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if both_ways or never_causal or getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(f"{path}: {kind} models read what follows a token too, expected a decoder as critic")


def _logit(value: float, bounds: tuple[float, float]) -> float:
    """Logit at which a bounded critic gives `value`, or the nearest value a percent of the range within its bounds."""
    low, high = bounds
    share = min(max((value - low) / (high - low), 0.01), 0.99)
    return math.log(share / (1.0 - share))


def load_tokenizer(path: Path | str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer that was saved with a policy.

    One that was saved as no model's in particular is loaded as such: AutoTokenizer would go by the policy's type, and
    for Qwen2 split the text in another way.

    Raises:
        CheckpointError: there is none, or it has no end of sequence.
    """
    _check_folder(path)
    kind = PreTrainedTokenizerFast if _is_of_no_model(Path(path)) else AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerFast = kind.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no tokenizer there ({first_line(error)})") from None
    except (ImportError, SyntaxError) as error:
        raise failure_of_code(error, path) from None
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"{path}: its tokenizer has no eos_token, expected the token that ends a response; name it in "
            "tokenizer_config.json"
        )
    return tokenizer


def _is_of_no_model(path: Path) -> bool:
    try:
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return config.get("tokenizer_class") in GENERIC and (path / "tokenizer.json").exists()


def _check_folder(path: Path | str) -> None:
    """Refuse a Path, or a string that can only be one, that does not exist; anything else may be a hub's name."""
    local = isinstance(path, Path) or str(path).startswith((".", "/", "~"))
    if local and not (Path(path) / "config.json").exists():
        raise CheckpointError(f"{path}: no config.json there, expected a folder in transformers format")


def load_config(path: Path | str, what: str = "a model", *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Load the configuration of a checkpoint.

    Raises:
        CheckpointError: there is none; `what` was expected.
    """
    _check_folder(path)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: expected {what} in transformers format ({first_line(error)})") from None
    except (ImportError, SyntaxError) as error:
        raise failure_of_code(error, path) from None
    return config


def _load(
    kind: Any,
    config: PretrainedConfig,
    path: Path | str,
    what: str,
    new: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
    *,
    trust_remote_code: bool,
) -> PreTrainedModel:
    """Load a model whose weights all come from the checkpoint, but for those whose names begin with one of `new`.

    `renamed` has patterns in the checkpoint's names, and what stands there in the model's.

    Processes other than the main one build it without weights, on the meta device; `sharding.prepare` brings them.
    """
    try:
        if not world().is_main:
            with torch.device("meta"):
                empty: PreTrainedModel = kind.from_config(
                    config, dtype=torch.float32, trust_remote_code=trust_remote_code
                )
            return empty.eval()
        model, info = kind.from_pretrained(
            str(path),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            key_mapping=renamed,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected {what} in transformers format ({first_line(error)})") from None
    except (ImportError, SyntaxError) as error:
        raise failure_of_code(error, path) from None
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(new))
    if missing:
        raise CheckpointError(f"{path}: expected {what}, but {len(missing)} of its weights are missing: {missing[0]}")
    _refuse_not_finite(model, path)
    return model.eval()


@torch.no_grad()
def _refuse_not_finite(model: PreTrainedModel, path: Path | str) -> None:
    """Refuse NaN and infinity: one of them in a weight, and all outputs of the model are NaN."""
    for name, weight in model.named_parameters():
        if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity, expected finite weights")
