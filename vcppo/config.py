"""Every setting and its default, once; how text becomes settings, and how a mistake in it is told."""

import difflib
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from vcppo.errors import ConfigError

Aggregation = Literal["token-mean", "sequence-mean", "fixed-length"]
Schedule = Literal["constant", "linear", "cosine"]


class Settings(BaseModel):
    """Frozen and closed: an unknown name is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskSettings(Settings):
    """What is asked, and how hard it is."""

    name: Literal["digits"] = Field("digits", description="the embedded task; see vcppo/tasks/digits.py")
    chain_length: int = Field(30, ge=2, le=2000, description="lines of thought that a right answer needs")
    spread: int = Field(0, ge=0, description="target lines vary from chain_length - spread to chain_length")
    digits: int = Field(3, ge=2, le=6, description="digits of the state, hence of the answer")
    stop_hazard: float = Field(0.09, ge=0, lt=1, description="chance a demonstration stops early, at each line")
    held_out: int = Field(200, ge=1, description="problems kept for evaluation, never trained on")


class ModelSettings(Settings):
    """The network that policy and critic share the shape of; a fresh one, or a checkpoint to start from."""

    path: str | None = Field(None, description="folder or hub name of a policy to start from instead of a fresh one")
    architecture: Literal["llama", "qwen2", "qwen3"] = Field("llama", description="stock transformers configuration")
    hidden_size: int = Field(64, ge=8, description="width")
    intermediate_size: int = Field(128, ge=8, description="width of the gated feed-forward layer")
    layers: int = Field(2, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int = Field(4, ge=1, description="key/value heads, a divisor of heads")
    initializer_range: float = Field(
        0.1, gt=0, description="standard deviation of fresh weights; 0.02 starts slowly here"
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.hidden_size % self.heads or self.heads % self.kv_heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size}, heads {self.heads}, kv_heads {self.kv_heads}: expected hidden_size "
                "an even multiple of heads, and heads a multiple of kv_heads"
            )
        return self


class OptimiserSettings(Settings):
    """AdamW and its learning-rate schedule."""

    learning_rate: float = Field(1e-3, gt=0, description="peak")
    schedule: Schedule = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises linearly from 0")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's mean of gradients")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="decay of AdamW's mean of squared gradients")
    adam_epsilon: float = Field(1e-8, gt=0, description="added to AdamW's denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


class ColdStartSettings(OptimiserSettings):
    """Supervised fine-tuning on demonstrations that mostly stop thinking too early."""

    learning_rate: float = Field(1e-2, gt=0, description="peak")
    schedule: Schedule = Field("cosine", description="after the warm-up")
    warmup_steps: int = Field(30, ge=0, description="steps over which the rate rises linearly from 0")
    steps: int = Field(800, ge=1, description="updates")
    batch_tokens: int = Field(3000, ge=1, description="tokens of demonstrations an update, in whole demonstrations")


class RewardModelSettings(OptimiserSettings):
    """Bradley-Terry on (correct, incorrect) answers, scored at the last token only."""

    learning_rate: float = Field(1e-3, gt=0, description="peak")
    steps: int = Field(200, ge=1, description="updates")
    centering: float = Field(0.1, ge=0, description="weight of the squared sum of a pair's scores; 0 leaves it free")
    pairs: int = Field(16, ge=1, description="(correct, incorrect) pairs an update")
    answers: int = Field(4096, ge=2, description="answers sampled from the cold-start policy to make pairs of")
    answers_per_prompt: int = Field(16, ge=2, description="of them to each problem; a pair shares its problem")


class RolloutSettings(Settings):
    """What one iteration samples."""

    prompts: int = Field(96, ge=1, description="problems an iteration")
    samples_per_prompt: int = Field(1, ge=1, description="answers a problem; GRPO needs more than one")
    temperature: float = Field(1.0, gt=0, description="of sampling; log-probabilities are taken at it too")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus; below 1 old_logprobs are those of the cut distribution")
    max_tokens: int | None = Field(None, ge=1, description="an answer is cut here; by default the task says")


class RewardSettings(Settings):
    """What the verifier's three verdicts are worth."""

    correct: float = Field(1.0, description="reward of a right answer")
    wrong: float = Field(-1.0, description="reward of a wrong answer")
    unreadable: float = Field(-1.0, description="reward of an answer with no readable result")


class PretrainSettings(OptimiserSettings):
    """Value pretraining: the critic learns Monte-Carlo returns of the fixed cold-start policy (section 4.1)."""

    learning_rate: float = Field(1e-3, gt=0, description="peak")
    steps: int | Literal["converge"] = Field(
        "converge", description="updates; 0 for none; `converge`: until held-out loss and explained variance settle"
    )
    max_steps: int = Field(300, ge=1, description="`converge` gives up here")
    batch: int = Field(96, ge=1, description="answers an update")
    pool: int = Field(2304, ge=1, description="answers of the fixed policy, generated once and shared by every critic")
    held_out: int = Field(384, ge=2, description="further answers that only measure loss and explained variance")
    fresh_rollouts: bool = Field(False, description="sample new answers for every update instead, as the paper does")
    evaluate_every: int = Field(10, ge=1, description="updates between measurements on the held-out answers")
    patience: int = Field(2, ge=1, description="measurements in a row without improvement that end `converge`")
    tolerance: float = Field(0.01, ge=0, description="a change smaller than this is no improvement")

    @field_validator("steps")
    @classmethod
    def _not_negative(cls, steps: int | str) -> int | str:
        if isinstance(steps, int) and steps < 0:
            raise PydanticCustomError("steps", "expected 0 or more, or `converge`")
        return steps


class GaeSettings(Settings):
    """Generalized advantage estimation, with a lambda for each of its two uses."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lambda_actor: float = Field(0.95, ge=0, le=1, description="bias-variance of the policy's advantages")
    lambda_critic: float = Field(1.0, ge=0, le=1, description="1.0: value targets are Monte-Carlo returns")
    length_adaptive_alpha: float | None = Field(
        None, gt=0, description="lambda_actor = 1 - 1/(alpha * length) instead of a number; VAPO uses 0.05"
    )
    bootstrap_truncated: bool = Field(False, description="an answer cut at the limit is worth V there, instead of 0")


class AdvantageSettings(Settings):
    """How good a token was."""

    estimator: Literal["gae", "grpo"] = Field("gae", description="`grpo` has no critic")
    whiten: Literal["none", "batch", "minibatch"] = Field("none", description="scope of normalisation to mean 0, std 1")
    group_scale: bool = Field(True, description="GRPO divides by the group's standard deviation")


class KlSettings(Settings):
    """Staying near the cold-start policy."""

    placement: Literal["none", "reward", "loss"] = Field("none", description="where the penalty enters")
    coefficient: float = Field(0.01, ge=0, description="its weight")
    estimator: Literal["k1", "k2", "k3"] = Field("k3", description="see vcppo/maths/losses.py")


class PolicySettings(OptimiserSettings):
    """The actor's update."""

    learning_rate: float = Field(3e-4, gt=0, description="peak")
    schedule: Schedule = Field("linear", description="after the warm-up")
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    minibatches: int = Field(4, ge=1, description="updates a pass")
    clip_low: float = Field(0.2, gt=0, lt=1, description="ratio is clipped at 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    dual_clip: float | None = Field(None, gt=1, description="bound on the loss of bad tokens, off by default")
    aggregation: Aggregation = Field("token-mean", description="how token losses become one number")
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")


class CriticSettings(OptimiserSettings):
    """The critic's start and its update during RL."""

    init: Literal["reward-model", "policy"] = Field("reward-model", description="where value pretraining starts from")
    learning_rate: float = Field(6e-4, gt=0, description="peak; papers keep it at twice the actor's")
    schedule: Schedule = Field("linear", description="after the warm-up")
    updates_per_policy_update: int = Field(1, ge=1, description="critic updates for each policy update")
    policy_starts_after: int = Field(0, ge=0, description="iterations, exactly so many, that train the critic only")
    value_loss: Literal["mse", "clipped"] = Field(
        "mse", description="plain squared error, or clipped around old values"
    )
    value_clip_range: float = Field(0.5, gt=0, description="range of the clipped value loss")
    aggregation: Aggregation = Field("token-mean", description="the critic's own, whatever the actor's is")


class GuardSettings(Settings):
    """When training is stopped because it has left the realm of sense."""

    max_ratio: float = Field(1e4, gt=1, description="a probability ratio above this ends the run")


class EvaluationSettings(Settings):
    """Held-out problems, fixed for a task, answered several times each."""

    samples: int = Field(8, ge=1, description="answers a problem in the final evaluation")
    every: int = Field(10, ge=0, description="iterations between evaluations during training; 0 for none")
    samples_during: int = Field(1, ge=1, description="answers a problem in those")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus")
    seed: int = Field(0, ge=0, description="of the sampling; the same for every run")


class RecordSettings(Settings):
    """What a run writes down, and how often."""

    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints to resume from")
    positions_every: int = Field(5, ge=1, description="iterations between tables of the critic by token position")
    samples_every: int = Field(10, ge=1, description="iterations between tables of sampled answers")
    samples: int = Field(4, ge=1, description="answers in such a table")


class RunSettings(Settings):
    """One run, whole."""

    arm: str = Field("vcppo", min_length=1, description="name of the run in tables and figures; changes nothing else")
    seed: int = Field(0, ge=0, description="of value pretraining and RL: problems drawn, tokens sampled, shuffles")
    base_seed: int = Field(0, ge=0, description="of cold start and reward model, shared by the seeds of a study")
    steps: int = Field(50, ge=1, description="RL iterations")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="cells of a forward pass, padding included; fewer pad less, more keep a GPU busy"
    )
    task: TaskSettings = TaskSettings()
    model: ModelSettings = ModelSettings()
    cold_start: ColdStartSettings = ColdStartSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    pretrain: PretrainSettings = PretrainSettings()
    gae: GaeSettings = GaeSettings()
    advantage: AdvantageSettings = AdvantageSettings()
    kl: KlSettings = KlSettings()
    policy: PolicySettings = PolicySettings()
    critic: CriticSettings = CriticSettings()
    guard: GuardSettings = GuardSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    record: RecordSettings = RecordSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        answers = self.rollout.prompts * self.rollout.samples_per_prompt
        if self.policy.minibatches > answers:
            raise ValueError(
                f"policy.minibatches = {self.policy.minibatches}: expected at most the {answers} answers "
                "an iteration samples (rollout.prompts * rollout.samples_per_prompt)"
            )
        if self.advantage.estimator == "grpo" and self.rollout.samples_per_prompt < 2:
            raise ValueError(
                "rollout.samples_per_prompt = 1: advantage.estimator = grpo compares answers to one prompt and needs "
                "2 or more"
            )
        if self.task.spread >= self.task.chain_length:
            raise ValueError(
                f"task.spread = {self.task.spread}: expected less than task.chain_length = {self.task.chain_length}"
            )
        return self

    def with_overrides(self, overrides: Mapping[str, Any], *, source: str = "overrides") -> "RunSettings":
        """These settings with dotted names replaced, validated anew; the only door for sweeps and flags.

        Raises:
            ConfigError: a name is unknown or a value out of range; the message names both and `source`.
        """
        return build_settings([(source, nest(overrides, source))], base=self)

    def digest(self) -> str:
        """12 hex digits that two runs share only if every setting but `arm` is the same."""
        return digest(self.model_dump(mode="json", exclude={"arm"}))


def digest(value: Any) -> str:
    """12 hex digits of a JSON value's canonical text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def known_names(model: type[BaseModel] = RunSettings, prefix: str = "") -> list[str]:
    """Every dotted setting name, in the order of declaration."""
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += known_names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def setting_type(name: str) -> tuple[Any, ...]:
    """The types a setting may have, literals as they are: `pretrain.steps` is (int, Literal["converge"])."""
    model: type[BaseModel] = RunSettings
    *sections, leaf = name.split(".")
    for section in sections:
        model = typing.cast(type[BaseModel], model.model_fields[section].annotation)
    kind = model.model_fields[leaf].annotation
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def may_be_none(name: str) -> bool:
    """Whether a setting has the value None, which text calls `none`."""
    return types.NoneType in setting_type(name)


def nest(dotted: Mapping[str, Any], source: str) -> dict[str, Any]:
    """{"gae.lambda_actor": 1} to {"gae": {"lambda_actor": 1}}; "none" is None where the setting may be None.

    Raises:
        ConfigError: a name is no setting.
    """
    tree: dict[str, Any] = {}
    known = set(known_names())
    for name, given in dotted.items():
        if name not in known:
            raise ConfigError(f"{name} (from {source}): no such setting{_suggestion(name)}")
        value = None if given == "none" and may_be_none(name) else given
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = value
    return tree


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value; a bare word is a string.

    >>> parse_assignment("gae.lambda_actor=0.99")
    ('gae.lambda_actor', 0.99)
    >>> parse_assignment("pretrain.steps=converge")
    ('pretrain.steps', 'converge')
    """
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text}: expected key=value, for example --set gae.lambda_actor=0.99")
    raw = raw.strip()
    try:
        return name.strip(), tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), raw


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict; a file that cannot be read is a ConfigError with its line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def load_settings(config: Path | None = None, assignments: Iterable[str] = ()) -> RunSettings:
    """Defaults, then a TOML file, then `--set key=value` flags; later wins, validated once."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if config is not None:
        text_is_json = config.suffix == ".json"
        layers.append((str(config), _read_json(config) if text_is_json else read_toml(config)))
    flags = dict(parse_assignment(text) for text in assignments)
    layers.append(("--set", nest(flags, "--set")))
    return build_settings(layers)


def build_settings(layers: list[tuple[str, dict[str, Any]]], base: RunSettings | None = None) -> RunSettings:
    """Merge (source, tree) layers over `base` and validate; every mistake is told with the layer it came from."""
    merged: dict[str, Any] = base.model_dump() if base is not None else {}
    for _, tree in layers:
        merged = _merge(merged, tree)
    try:
        return RunSettings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, layers) for detail in error.errors())) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected an object of settings, found {type(tree).__name__}")
    return tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both_trees = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both_trees else value
    return merged


def _suggestion(name: str) -> str:
    known = known_names()
    close = difflib.get_close_matches(name, known, n=1) or [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
    return f"; did you mean {close[0]}?" if close else "; `vcppo settings` lists them all"


def _explain(detail: Any, layers: list[tuple[str, dict[str, Any]]]) -> str:
    """One pydantic error as one clause: name, value, source, what was wanted."""
    location = [str(part) for part in detail["loc"]]
    known = known_names()
    while len(location) > 1 and ".".join(location) not in known and detail["type"] != "extra_forbidden":
        location.pop()  # pydantic appends the union's member
    name = ".".join(location)
    source = next(
        (source for source, tree in reversed(layers) if _holds(tree, location)), "the combination of settings"
    )
    if detail["type"] == "extra_forbidden":
        return f"{name} (from {source}): no such setting{_suggestion(name)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return str(message)
    return f"{name} = {detail['input']!r} (from {source}): {message[0].lower()}{message[1:]}"


def _holds(tree: Any, location: list[str]) -> bool:
    for part in location:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True
