"""The shapes of models, and how many weights they have: of a fresh one, a local folder, or a well-known name."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vcppo.errors import CheckpointError, ConfigError
from vcppo.settings.critic_size import Size, size_of
from vcppo.settings.model import ModelSettings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings, TaskSettings

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # in configurations of mixtures of experts


@dataclass(frozen=True)
class Shapes:
    """A decoder with gated feed-forward layers; the Llama, Qwen2 and Qwen3 families to the weight, others nearly."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the output head is the embedding

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's matrices by name: (inputs, outputs)."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def layer_matrices(self) -> int:
        """Weights of one layer that a token is multiplied with."""
        return sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def layer_weights(self) -> int:
        """Weights of one layer: matrices, biases, norms."""
        small = 2 * self.hidden_size
        if self.architecture == "qwen2":
            small += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.architecture == "qwen3":
            small += 2 * self.head_dim
        return self.layer_matrices + small

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and as many of the output head."""
        return self.vocabulary * self.hidden_size

    @property
    def policy_weights(self) -> int:
        """All of them, a tied head counted once."""
        return self.layers * self.layer_weights + (1 if self.tied else 2) * self.embedding + self.hidden_size

    @property
    def critic_weights(self) -> int:
        """The same decoder with one output in place of the vocabulary."""
        return self.layers * self.layer_weights + self.embedding + self.hidden_size + self.value_head

    @property
    def value_head(self) -> int:
        """Weights of the critic's one output."""
        return self.hidden_size + 1


def _table(architecture: str, vocabulary: int, rows: str) -> dict[str, Shapes]:
    table = {}
    for row in rows.strip().splitlines():
        name, tied, *numbers = row.split()
        hidden, inner, layers, heads, kv_heads, width = map(int, numbers)
        table[name] = Shapes(architecture, hidden, inner, layers, heads, kv_heads, width, vocabulary, tied == "tied")
    return table


# As their config.json has them: hidden, intermediate, layers, heads, key/value heads, width of a head.
KNOWN: Mapping[str, Shapes] = {
    **_table(
        "qwen2",
        151936,
        """
        qwen2.5-0.5b        tied    896   4864 24 14  2  64
        qwen2.5-1.5b        tied   1536   8960 28 12  2 128
        qwen2.5-3b          tied   2048  11008 36 16  2 128
        """,
    ),
    **_table(
        "qwen2",
        152064,
        """
        qwen2.5-7b          untied 3584  18944 28 28  4 128
        qwen2.5-14b         untied 5120  13824 48 40  8 128
        qwen2.5-32b         untied 5120  27648 64 40  8 128
        qwen2.5-72b         untied 8192  29568 80 64  8 128
        """,
    ),
    **_table(
        "qwen3",
        151936,
        """
        qwen3-0.6b          tied   1024   3072 28 16  8 128
        qwen3-1.7b          tied   2048   6144 28 16  8 128
        qwen3-4b            tied   2560   9728 36 32  8 128
        qwen3-8b            untied 4096  12288 36 32  8 128
        qwen3-14b           untied 5120  17408 40 40  8 128
        qwen3-32b           untied 5120  25600 64 64  8 128
        """,
    ),
    **_table(
        "llama",
        49152,
        """
        smollm2-135m        tied    576   1536 30  9  3  64
        smollm2-360m        tied    960   2560 32 15  5  64
        smollm2-1.7b        tied   2048   8192 24 32 32  64
        """,
    ),
    **_table(
        "llama",
        128256,
        """
        llama-3.2-1b        tied   2048   8192 16 32  8  64
        llama-3.2-3b        tied   3072   8192 28 24  8 128
        llama-3-8b          untied 4096  14336 32 32  8 128
        llama-3.1-8b        untied 4096  14336 32 32  8 128
        """,
    ),
}


def shapes_of(settings: RunSettings) -> Shapes:
    """Return the shapes of the policy that a run starts from; nothing is downloaded.

    Raises:
        ConfigError: `model.path` is no folder, and no model whose shapes are known.
        CheckpointError: the folder's config.json cannot be read or is of another family.
    """
    path = settings.model.path
    if path is None:
        return _fresh(settings.model, settings.task)
    if (folder := model_folder(path)) is not None:
        return read_shapes(folder / "config.json")
    if (known := KNOWN.get(_plain_name(path))) is not None:
        return known
    raise ConfigError(
        f"model.path = {path}: no config.json there and no shapes known by that name; expected a local folder or one "
        f"of {', '.join(KNOWN)}"
    )


def model_folder(path: str) -> Path | None:
    """Return the folder of a model's configuration: a local one, or the hub's in the local cache, if any."""
    if (Path(path).expanduser() / "config.json").exists():
        return Path(path).expanduser()
    cached = _downloaded(path)
    return None if cached is None else cached.parent


def positions_of(settings: RunSettings) -> int | None:
    """Return the tokens that prompt and response may have together in the given model; None if nobody here knows."""
    folder = None if settings.model.path is None else model_folder(settings.model.path)
    if folder is None:
        return None
    config = _read_object(folder / "config.json")
    limits = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def critic_shapes_of(settings: RunSettings) -> Shapes:
    """Return the shapes of the critic: the policy's, unless it is a new network.

    Raises:
        ConfigError: a new network's heads do not fit its width.
    """
    policy, critic = shapes_of(settings), settings.critic
    if critic.init != "new":
        return policy
    names = [field.name for field in fields(Size)]
    size = size_of(critic, Size(**{name: getattr(policy, name) for name in names}))
    if size.misfit is not None:
        raise ConfigError(size.misfit)
    return replace(policy, **{name: getattr(size, name) for name in names})


def read_shapes(path: Path) -> Shapes:
    """Read the shapes in a config.json of transformers.

    Raises:
        CheckpointError: it cannot be read, or lacks something.
    """
    return shapes_in(_read_object(path), path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: {type(config).__name__}, expected an object: a model's configuration")
    return config


def shapes_in(config: Mapping[str, Any], source: Path | str) -> Shapes:
    """Return the shapes that a configuration of transformers tells.

    Raises:
        CheckpointError: it lacks something; `source` is where it is from.
    """
    if any((config.get(name) or 0) > 1 for name in EXPERTS):
        raise CheckpointError(f"{source}: a mixture of experts, whose weights are not counted here")
    try:
        if config.get("model_type") == "gpt2":
            config = _with_usual_names(config)
        heads = config["num_attention_heads"]
        return Shapes(
            architecture=config["model_type"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", config["model_type"] not in ("llama", "qwen2", "qwen3")),
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{source}: no decoder's configuration, {error} is missing or wrong") from None


def _with_usual_names(gpt2: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's configuration under the names of the others; its two feed-forward matrices as three of their weights."""
    hidden = gpt2["n_embd"]
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * (gpt2.get("n_inner") or 4 * hidden) // 3,
        "num_hidden_layers": gpt2["n_layer"],
        "num_attention_heads": gpt2["n_head"],
        **gpt2,
    }


def _fresh(model: ModelSettings, task: TaskSettings) -> Shapes:
    assert not isinstance(task, MathsTaskSettings), "a fresh model is for an embedded task alone"
    return Shapes(
        architecture=model.architecture,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.hidden_size // model.heads,
        vocabulary=task.vocabulary,
        tied=model.tied,
    )


def _plain_name(path: str) -> str:
    """Strip a hub name of what does not change shapes: owner, Instruct, Math, Coder, Base.

    >>> _plain_name("Qwen/Qwen2.5-Math-7B-Instruct"), _plain_name("meta-llama/Meta-Llama-3-8B")
    ('qwen2.5-7b', 'llama-3-8b')
    """
    name = path.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"-(instruct|math|coder|base|it|chat)(?=-|$)|^meta-", "", name)


def _downloaded(path: str) -> Path | None:
    """Return the config.json of a hub model in the local cache, if any."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        return None
    return Path(file) if isinstance(file, str) else None
