"""Which settings mean nothing beside which others: a setting that would be ignored is refused, and so is a nonsense.

Rules are on the slots, not on names of methods: a method that somebody puts together anew is judged like a known one.
"""

import itertools
from collections.abc import Callable, Iterator

from vcppo.settings import estimators
from vcppo.settings.advantage import GroupAdvantageSettings
from vcppo.settings.estimators import ESTIMATORS, Estimator
from vcppo.settings.fixed import VLLM_COLDEST
from vcppo.settings.kinds import layout, other_kind
from vcppo.settings.known_sets import KNOWN, is_file
from vcppo.settings.losses import POLICY_LOSSES, PolicyLoss
from vcppo.settings.sections import RunSections
from vcppo.settings.task import MathsSettings

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
    "tolerance",
]


def _maths(s: RunSections) -> MathsSettings:
    return s.task.maths if s.task.name == "maths" else MathsSettings()


def _estimator(s: RunSections) -> Estimator:
    return ESTIMATORS[s.advantage.estimator]


def _loss(s: RunSections) -> PolicyLoss:
    return POLICY_LOSSES[s.policy.loss]


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
        tuple(f"pretrain.{name}" for name in PRETRAINING),
        lambda s: s.pretrain.steps == 0,
        "pretrain.steps = 0",
    ),
    (
        ("pretrain.held_out",),
        lambda s: s.pretrain.steps == 0 and not s.starts_at_mean_score,
        "pretrain.steps = 0, and no mean score is asked for",
    ),
    (
        ("pretrain.patience", "pretrain.tolerance"),
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
        lambda s: not _estimator(s).uses_lambda,
        "advantage.estimator = {s.advantage.estimator} uses no lambda",
    ),
    (
        ("gae.length_adaptive_alpha",),
        lambda s: not _estimator(s).length_adaptive,
        "advantage.estimator = {s.advantage.estimator} has no length-adaptive lambda",
    ),
    (
        ("gae.lambda_actor",),
        lambda s: s.gae.length_adaptive_alpha is not None,
        "gae.length_adaptive_alpha makes lambda_actor from each answer's length",
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
        lambda s: not _estimator(s).bootstraps,
        "advantage.estimator = {s.advantage.estimator} bootstraps nothing",
    ),
    (
        ("gae.bootstrap_truncated",),
        lambda s: s.select.drop_truncated,
        "select.drop_truncated = true: no answer that was cut is trained on",
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
        lambda s: not _loss(s).linear,
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
        ("guard.kl_alarm",),
        lambda s: s.policy.epochs * s.policy.minibatches == 1,
        "between updates that are one an iteration there is nothing to measure",
    ),
    (("evaluation.samples_during",), lambda s: s.evaluation.every == 0, "evaluation.every = 0"),
    (
        ("evaluation.top_p", "evaluation.seed"),
        lambda s: s.evaluation.temperature == 0,
        "evaluation.temperature = 0 is greedy decoding, which draws nothing",
    ),
    (
        ("record.truth_every", "record.truth_answers", "record.truth_samples"),
        lambda s: not s.has_critic and not s.samples_continuations,
        "advantage.estimator = {s.advantage.estimator} estimates no state's value",
    ),
    (("record.truth_answers", "record.truth_samples"), lambda s: s.record.truth_every == 0, "record.truth_every = 0"),
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


def rewards_tokens(settings: RunSections) -> bool:
    """Whether rewards stand on tokens beside the score: a KL penalty, or RTO's. They need a forward pass."""
    return settings.kl.placement == "reward" or settings.token_reward.kind != "none"


def bootstraps(settings: RunSections) -> bool:
    """Whether an answer cut at the limit is worth V there, in place of its score."""
    return settings.gae.bootstrap_truncated and _estimator(settings).bootstraps


def unused(settings: RunSections, name: str) -> str | None:
    """Why a setting, by its dotted name, would change nothing in this run; None if it may.

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


def meaningless(settings: RunSections) -> Iterator[str]:
    """Every reason why the settings do not go together, each naming what was set and what was wanted."""
    s = settings
    samples, estimator, loss = s.rollout.samples_per_prompt, s.advantage.estimator, s.policy.loss
    kept = s.answers - int(s.answers * s.select.prune_rate)
    if s.task.name == "maths" and s.model.path is None:
        yield "model.path = none: task.name = maths needs a model that can read, expected a folder or a hub name"
    if s.policy.minibatches > kept:
        yield (
            f"policy.minibatches = {s.policy.minibatches}: expected at most the {kept} answers an iteration trains on "
            "(rollout.prompts * rollout.samples_per_prompt, less what is pruned)"
        )
    groups = {
        f"advantage.estimator = {estimator}": _estimator(s).compares,
        f"policy.loss = {loss}": _loss(s).pairs,
        "select.dynamic_sampling = true": s.select.dynamic_sampling,
        f"select.prune_rate = {s.select.prune_rate:g}": s.select.prune_rate > 0 and s.select.scope == "question",
    }
    for what, wanted in groups.items():
        if wanted and samples < 2:
            yield (
                f"rollout.samples_per_prompt = {samples}: {what} compares answers to one question, expected 2 or more"
            )
    if _loss(s).pairs != (_estimator(s).rewards == "none"):
        yield (
            f"policy.loss = {loss} with advantage.estimator = {estimator}: DPO has pairs in place of advantages, "
            "expected both `dpo` and `none`, or neither"
        )
    if s.evaluation.problems == "search" and s.task.name == "maths":
        yield (
            "evaluation.problems = search: task.name = maths keeps none for it; name the set that settings are chosen "
            "by in task.maths.evaluate"
        )
    if s.evaluation.problems == "search" and s.task.name == "digits" and not s.task.held_out_for_search:
        yield "evaluation.problems = search: none are kept for it, expected task.held_out_for_search above 0"
    yield from _about_models(s)
    yield from _about_rewards(s)
    yield from _about_losses(s)
    yield from _about_values(s)
    yield from _about_engine(s)
    yield from _about_evaluation(s)


def _about_rewards(s: RunSections) -> Iterator[str]:
    estimator, grouped = s.advantage.estimator, _estimator(s).compares
    moves = s.reference.ema > 0 or s.reference.refresh_every != "never"
    if s.reward.normalise != "none" and isinstance(s.advantage, GroupAdvantageSettings) and s.advantage.group_scale:
        yield (
            f"reward.normalise = {s.reward.normalise} with GRPO's division by the group's deviation: the second "
            "undoes the first; drop it, or set advantage.group_scale = false"
        )
    for name, given in {"truncated": s.reward.truncated, "overlong_share": s.reward.overlong_share}.items():
        if bootstraps(s) and given is not None:
            yield (
                f"reward.{name} = {given:g} with gae.bootstrap_truncated = true: an answer cut at the limit is worth V "
                f"there, whatever its score; expected reward.{name} = none, or gae.bootstrap_truncated = false"
            )
    if s.token_reward.kind != "none" and moves:
        yield (
            f"token_reward.kind = {s.token_reward.kind} with a reference that moves: its potential would move too; "
            "expected reference.ema = 0 and reference.refresh_every = never"
        )
    if s.reference.ema > 0 and s.reference.refresh_every != "never":
        yield "reference.ema with reference.refresh_every: it moves one way or the other, expected one of them"
    dense = rewards_tokens(s)
    if s.select.prune_rate > 0 and grouped and dense:
        yield (
            "select.prune_rate with a reward that needs a forward pass (kl.placement = reward, token_reward): CPPO "
            "knows the advantage before any; use kl.placement = loss"
        )
    if _estimator(s).rewards == "score" and dense:
        yield (
            f"advantage.estimator = {estimator} with a reward on every token (kl.placement = reward, token_reward): "
            "its values are of the verifier's score alone; use kl.placement = loss"
        )
    if _estimator(s).rewards == "token" and s.token_reward.kind != "none":
        yield f"token_reward.kind = {s.token_reward.kind}: {_estimator(s).title} has no reward but a KL penalty"


def _about_losses(s: RunSections) -> Iterator[str]:
    loss, record = s.policy.loss, _loss(s)
    if s.early_stop.deviation != "none" and record.clips_ratio:
        yield (
            f"early_stop.deviation = {s.early_stop.deviation} with policy.loss = {loss}: ESPO stops in place of "
            "clipping, both together test neither; use policy.loss = unclipped"
        )
    if s.early_stop.deviation != "none" and not record.may_stop_early:
        yield f"early_stop.deviation = {s.early_stop.deviation} with policy.loss = {loss}, which knows no ratio"
    if record.reference_stays and (s.reference.ema > 0 or s.reference.refresh_every != "never"):
        yield (
            f"policy.loss = {loss} with a reference that moves: {record.title}'s target is the first policy's, "
            "expected it frozen"
        )
    for name, why in record.excludes.items():
        section, leaf = name.split(".")
        value = getattr(getattr(s, section), leaf)
        if value != layout()[name].default:
            yield f"{name} = {value} with policy.loss = {loss}: {why}"


def _about_models(s: RunSections) -> Iterator[str]:
    if s.cold_start.steps == 0 and s.model.path is None:
        yield "cold_start.steps = 0 without model.path: a fresh model knows nothing; expected one of them"
    if s.lora.rank > 0 and s.model.path is None:
        yield "lora.rank without model.path: a fresh model's own weights would stay random; expected a model to adapt"
    if s.compute.packing and s.compute.attention == "eager":
        yield "compute.packing with compute.attention = eager: it would let answers see each other; use sdpa"


def _about_values(s: RunSections) -> Iterator[str]:
    if not s.has_critic:
        return
    if s.critic.init == "saved" and s.critic.path is None:
        yield "critic.init = saved without critic.path: expected the folder or the hub name of a critic"
    if s.critic.normalise_returns and s.starts_at_mean_score:
        yield (
            "critic.initial_value = mean-score with critic.normalise_returns: what such a critic learns has mean 0; "
            "expected critic.initial_value = 0"
        )
    steps, last = s.pretrain.steps, s.pretrain.max_steps
    if steps != "converge" and steps > last and s.pretrain.schedule != "constant":
        yield (
            f"pretrain.steps = {steps} with pretrain.schedule = {s.pretrain.schedule}: the rate is 0 from "
            f"pretrain.max_steps = {last} on; expected pretrain.max_steps = {steps} or more, or pretrain.schedule = "
            "constant"
        )
    if s.critic.bounded and (rewards_tokens(s) or s.reward.normalise != "none" or s.critic.normalise_returns):
        yield (
            "critic.bounded with returns beyond the scores' range (kl.placement = reward, token_reward, "
            "reward.normalise, critic.normalise_returns): the critic could not say what is true"
        )
    if s.critic.update_every == "never" and s.critic.policy_starts_after > 0:
        yield (
            f"critic.policy_starts_after = {s.critic.policy_starts_after} with critic.update_every = never: those "
            "iterations would train nothing"
        )
    if s.critic.normalise_returns and s.pretrain.steps != 0:
        yield (
            "critic.normalise_returns with value pretraining: pretraining teaches plain returns; expected "
            "pretrain.steps = 0"
        )


def _about_engine(s: RunSections) -> Iterator[str]:
    if s.engine.kind == "vllm":
        temperatures = {"rollout": s.rollout.temperature, "evaluation": s.evaluation.temperature}
        for section, temperature in temperatures.items():
            if 0 < temperature < VLLM_COLDEST:
                yield (
                    f"{section}.temperature = {temperature:g} with engine.kind = vllm, which samples at "
                    f"{VLLM_COLDEST:g} or above"
                )


def _about_evaluation(s: RunSections) -> Iterator[str]:
    if s.evaluation.temperature == 0:
        asked = {
            "samples": s.evaluation.samples,
            "samples_during": s.evaluation.samples_during * (s.evaluation.every > 0),
        }
        for name, samples in asked.items():
            if samples > 1:
                yield (
                    f"evaluation.{name} = {samples} with evaluation.temperature = 0: greedy decoding answers a problem "
                    "always alike, expected 1"
                )
