"""Settings that would change nothing beside others: such a setting is refused, or told.

Rules are on the slots, not on names of methods: a new combination is judged like a known method.
What belongs to another kind of its section is no rule, see vcppo/settings/kinds.py.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

from vcppo.settings import estimators
from vcppo.settings.kinds import other_kind
from vcppo.settings.known_sets import KNOWN, is_file
from vcppo.settings.losses import POLICY_LOSSES
from vcppo.settings.notes import Note
from vcppo.settings.sections import RunSections
from vcppo.settings.task import MathsSettings, MathsTaskSettings

Rule = tuple[tuple[str, ...], Callable[[RunSections], bool], str]

DISCOUNTING = estimators.names_of(lambda estimator: estimator.discounts or estimator.has_critic)
STEPWISE = " or ".join(estimators.names_of(lambda estimator: estimator.samples_continuations))
NO_STEPS = f"advantage.estimator = {{s.advantage.estimator}} is not {STEPWISE}"
OPTIMISER = (
    "learning_rate",
    "schedule",
    "warmup_steps",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
)
FRESH = tuple(
    f"model.{name}"
    for name in (
        "architecture",
        "hidden_size",
        "intermediate_size",
        "layers",
        "heads",
        "kv_heads",
        "initializer_range",
        "tied",
    )
)
FROZEN_CRITIC = [
    *OPTIMISER,
    "updates_per_policy_update",
    "value_loss",
    "value_clip_range",
    "normalise_returns",
]

PRETRAINING = [
    *OPTIMISER,
    "max_steps",
    "batch",
    "pool",
    "fresh_rollouts",
    "evaluate_every",
    "patience",
    "min_delta",
    "held_out_prompts",
    "gae_lambda",
    "checkpoints",
]


def _maths(s: RunSections) -> MathsSettings:
    return s.task.maths if isinstance(s.task, MathsTaskSettings) else MathsSettings()


def _ignored_by(loss: str) -> Callable[[RunSections], bool]:
    return lambda s: s.policy.loss == loss


# (names or sections, when they are unused, why)
UNUSED: tuple[Rule, ...] = (
    (
        tuple(f"task.maths.{name}_column" for name in ("question", "answer", "solution", "name")),
        lambda s: _maths(s).train in KNOWN and _maths(s).evaluate in KNOWN,
        "the columns of {s.task.maths.train} and {s.task.maths.evaluate} are known",
    ),
    (("task.maths.train_split",), lambda s: is_file(_maths(s).train), "task.maths.train is a file"),
    (("task.maths.evaluate_split",), lambda s: is_file(_maths(s).evaluate), "task.maths.evaluate is a file"),
    (
        tuple(f"task.maths.{name}" for name in ("form", "time_limit_s", "memory_limit_mb", "workers")),
        lambda s: _maths(s).answers == "integer",
        "task.maths.answers = integer reads integers alone, and nothing is compared but their digits",
    ),
    (("task.maths.system",), lambda s: _maths(s).template == "plain", "task.maths.template = plain has no system"),
    (("task.maths.think_open", "task.maths.think_close"), lambda s: not _maths(s).think, "task.maths.think = false"),
    (("critic", "pretrain"), lambda s: not s.has_critic, "advantage.estimator = {s.advantage.estimator} has no critic"),
    (
        ("pretrain", "gae.lambda_critic"),
        lambda s: s.has_critic and not s.has_value_model,
        "critic.init = {s.critic.init} computes its values and learns nothing",
    ),
    (
        tuple(f"pretrain.{name}" for name in PRETRAINING),
        lambda s: s.pretrain.steps == 0,
        "pretrain.steps = 0",
    ),
    (
        ("pretrain.held_out",),
        lambda s: s.pretrain.steps == 0 and not s.starts_from_scores,
        "pretrain.steps = 0, and no mean score is asked for",
    ),
    (
        ("pretrain.patience", "pretrain.min_delta"),
        lambda s: s.pretrain.steps != "converge",
        "pretrain.steps = {s.pretrain.steps}",
    ),
    (("pretrain.pool",), lambda s: s.pretrain.fresh_rollouts, "pretrain.fresh_rollouts = true"),
    (
        ("reward_model",),
        lambda s: not s.has_critic or s.critic.init != "reward-model",
        "no critic starts from a reward model here",
    ),
    (
        ("gae.lambda_actor",),
        lambda s: not s.estimator.uses_lambda,
        "advantage.estimator = {s.advantage.estimator} uses no lambda",
    ),
    (
        ("gae.length_adaptive_alpha",),
        lambda s: not s.estimator.length_adaptive,
        "advantage.estimator = {s.advantage.estimator} has no length-adaptive lambda",
    ),
    (
        ("gae.lambda_actor",),
        lambda s: s.gae.length_adaptive_alpha is not None,
        "gae.length_adaptive_alpha makes lambda_actor from each response's length",
    ),
    (
        ("gae.lambda_critic",),
        lambda s: not s.has_critic,
        "advantage.estimator = {s.advantage.estimator} has no critic",
    ),
    (("gae.lambda_critic",), lambda s: s.critic.update_every == "never", "critic.update_every = never: it is frozen"),
    (
        ("gae.gamma",),
        lambda s: s.advantage.estimator not in DISCOUNTING,
        "advantage.estimator = {s.advantage.estimator} discounts nothing",
    ),
    (
        ("gae.bootstrap_truncated",),
        lambda s: not s.estimator.bootstraps,
        "advantage.estimator = {s.advantage.estimator} bootstraps nothing",
    ),
    (
        ("gae.bootstrap_truncated",),
        lambda s: s.select.drop_truncated,
        "select.drop_truncated = true: no response that was cut is trained on",
    ),
    (
        tuple(f"critic.{name}" for name in FROZEN_CRITIC),
        lambda s: s.critic.update_every == "never",
        "critic.update_every = never: it is frozen",
    ),
    (
        ("critic.value_clip_range",),
        lambda s: s.critic.value_loss != "clipped",
        "critic.value_loss = {s.critic.value_loss}",
    ),
    (("reference",), lambda s: not s.needs_reference, "nothing compares with a reference here"),
    *(
        ((name,), _ignored_by(loss), why)
        for loss, record in POLICY_LOSSES.items()
        for name, why in record.ignores.items()
    ),
    (("reward.overlong_penalty",), lambda s: s.reward.overlong_share is None, "reward.overlong_share = none"),
    (("select.scope", "select.keep", "select.refill"), lambda s: s.select.prune_rate == 0, "select.prune_rate = 0"),
    (
        ("select.refill",),
        lambda s: round(1.0 / (1.0 - s.select.prune_rate)) == 1,
        "at select.prune_rate = {s.select.prune_rate:g} it asks no question more",
    ),
    (("select.max_rounds",), lambda s: not s.select.dynamic_sampling, "select.dynamic_sampling = false"),
    (("vine",), lambda s: not s.samples_continuations, NO_STEPS),
    (("vine.cap",), lambda s: s.vine.max_steps is None, "vine.max_steps = none"),
    (("mismatch.cap", "mismatch.alarm"), lambda s: not s.checks_mismatch, "nothing is compared here"),
    (
        ("mismatch.cap",),
        lambda s: not s.loss.linear,
        "policy.loss = {s.policy.loss} is not linear in its advantages",
    ),
    (("lora.alpha", "lora.targets"), lambda s: s.lora.rank == 0, "lora.rank = 0: all weights are trained"),
    (FRESH, lambda s: s.model.path is not None, "the model of model.path has a shape of its own"),
    (
        tuple(f"cold_start.{name}" for name in (*OPTIMISER, "batch_tokens")),
        lambda s: s.cold_start.steps == 0,
        "cold_start.steps = 0",
    ),
    (
        ("guard.kl_alarm", "early_stop.deviation"),
        lambda s: s.policy.epochs * s.policy.minibatches == 1,
        "between updates that are one an iteration there is nothing to measure",
    ),
    (
        ("record.alignment_every",),
        lambda s: s.loss.pairs,
        "policy.loss = {s.policy.loss} has pairs in place of advantages",
    ),
    (("evaluation.samples_during",), lambda s: s.evaluation.every == 0, "evaluation.every = 0"),
    (
        ("evaluation.top_p", "evaluation.seed"),
        lambda s: s.evaluation.temperature == 0,
        "evaluation.temperature = 0 is greedy decoding, which draws nothing",
    ),
    (
        ("record.truth_every", "record.truth_responses", "record.truth_samples"),
        lambda s: not s.has_critic and not s.samples_continuations,
        "advantage.estimator = {s.advantage.estimator} estimates no state's value",
    ),
    (("record.forecast_responses",), lambda s: s.loss.pairs, "policy.loss = {s.policy.loss} has no advantages"),
    (("record.truth_responses", "record.truth_samples"), lambda s: s.record.truth_every == 0, "record.truth_every = 0"),
    (
        tuple(f"engine.{name}" for name in ("python", "url", "devices", "start_timeout_s", "request_timeout_s")),
        lambda s: s.engine.kind == "vllm" and s.engine.mode == "colocated",
        "engine.mode = colocated starts no server",
    ),
    (
        ("engine.python", "engine.devices"),
        lambda s: s.engine.kind == "vllm" and s.engine.url is not None,
        "the server at engine.url = {s.engine.url} runs already",
    ),
    (
        ("engine.sleep",),
        lambda s: s.engine.kind == "vllm" and s.engine.mode == "server",
        "engine.mode = server has its memory to itself",
    ),
)  # fmt: skip


def _one_update(s: RunSections) -> bool:
    return s.policy.epochs * s.policy.minibatches == 1


def _ratio_is_one(s: RunSections) -> bool:
    """True where an update's log-probabilities are those that it is held against, to the last digits."""
    exact = s.checks_mismatch or (s.engine.kind == "torch" and s.compute.dtype == "float32")
    return _one_update(s) and s.rollout.refresh_every == 1 and exact


WITHOUT_EFFECT: tuple[Rule, ...] = (  # read, and no number depends on them: a note, no refusal
    (
        ("policy.clip_low", "policy.clip_high", "policy.dual_clip"),
        _ratio_is_one,
        "a batch is for one update, whose ratios are all 1",
    ),
    (
        ("critic.value_loss", "critic.value_clip_range"),
        lambda s: _one_update(s) and s.has_value_model and s.critic.updates_per_policy_update == 1,
        "a batch is for one update, whose values are the old ones",
    ),
    (
        ("token_reward.weight", "token_reward.clip", "token_reward.dpo_steps"),
        lambda s: s.token_reward.kind != "none" and s.token_reward.weight == 0,
        "token_reward.weight = 0; token_reward.kind = none trains no model for it",
    ),
    (
        ("task.maths.max_tokens",),
        lambda s: s.rollout.max_tokens is not None,
        "rollout.max_tokens = {s.rollout.max_tokens} is the limit",
    ),
    (
        ("record.positions_every",),
        lambda s: not s.has_critic and not s.samples_continuations,
        "advantage.estimator = {s.advantage.estimator} estimates no state's value",
    ),
)


def notes_without_effect(settings: RunSections, names: Iterable[str], source: str) -> Iterator[Note]:
    """Yield a note for each of these settings, by dotted names, that is read and changes nothing."""
    for name in names:
        if unused(settings, name) is not None:  # nobody reads it: another note, or a refusal
            continue
        reasons = (_why(settings, rule) for rule in WITHOUT_EFFECT if name in rule[0])
        if (reason := next((reason for reason in reasons if reason is not None), None)) is not None:
            yield Note("", name, f" (from {source}) changes nothing: {reason}")


def unused(settings: RunSections, name: str) -> str | None:
    """Say why a setting, by its dotted name, would change nothing in this run; None if it may.

    First because nobody reads its whole section, then because its section is of another kind, then for its own sake.
    """
    parts = name.split(".")
    sections = {".".join(parts[:count]) for count in range(1, len(parts))}
    of_section = (_why(settings, rule) for rule in UNUSED if not sections.isdisjoint(rule[0]))
    of_itself = (_why(settings, rule) for rule in UNUSED if name in rule[0])
    reasons = itertools.chain(of_section, [other_kind(settings, name)], of_itself)
    return next((reason for reason in reasons if reason is not None), None)


def _why(settings: RunSections, rule: Rule) -> str | None:
    _, when, why = rule
    return why.format(s=settings) if when(settings) else None
