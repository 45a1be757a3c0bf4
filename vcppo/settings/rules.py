"""Rules across settings that do not go together: each refusal names what was set and what was wanted.

Rules are on the slots, not on names of methods: a new combination is judged like a known method.
"""

from collections.abc import Iterator

from vcppo.settings.advantage import GroupAdvantageSettings
from vcppo.settings.critic_size import Size, size_of
from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.fixed import VLLM_COLDEST
from vcppo.settings.kinds import layout
from vcppo.settings.sections import RunSections


def rewards_tokens(settings: RunSections) -> bool:
    """True if tokens earn rewards beside the score: a KL penalty, or RTO's. They need a forward pass."""
    return settings.kl.placement == "reward" or settings.token_reward.kind != "none"


def bootstraps(settings: RunSections) -> bool:
    """True if a response cut at the limit is worth V there, in place of its score."""
    return settings.gae.bootstrap_truncated and settings.estimator.bootstraps


def has_exact_values(settings: RunSections) -> bool:
    """True if the values of states can be computed (vcppo/rl/exact_values.py)."""
    return next(unlike_exact_values(settings), None) is None


def unlike_exact_values(s: RunSections) -> Iterator[str]:
    """Every setting with which returns are no longer what exact values compute, and what was wanted.

    They know the chance that a response, drawn from the whole distribution and cut at the limit, is judged correct.
    """
    if not s.task.exact_values:
        yield f"task.name = {s.task.name}: nobody knows what its right responses are made of, expected an embedded task"
    if s.rollout.top_p < 1:
        yield f"rollout.top_p = {s.rollout.top_p:g}: expected 1"
    if s.gae.gamma < 1:
        yield f"gae.gamma = {s.gae.gamma:g}: expected 1"
    if s.reward.unreadable != s.reward.wrong:
        yield f"reward.unreadable = {s.reward.unreadable:g}: expected reward.wrong = {s.reward.wrong:g}"
    shaped = {"truncated": s.reward.truncated, "overlong_share": s.reward.overlong_share, "clip": s.reward.clip}
    for name, given in shaped.items():
        if given is not None:
            yield f"reward.{name} = {given:g}: expected none"
    if s.reward.normalise != "none":
        yield f"reward.normalise = {s.reward.normalise}: expected none"
    if s.kl.placement == "reward":
        yield "kl.placement = reward: expected loss or none"
    if s.token_reward.kind != "none":
        yield f"token_reward.kind = {s.token_reward.kind}: expected none"
    if bootstraps(s):
        yield "gae.bootstrap_truncated = true: expected false"


def meaningless(settings: RunSections) -> Iterator[str]:
    """Every reason why the settings do not go together, each naming what was set and what was wanted."""
    s = settings
    samples, estimator, loss = s.rollout.samples_per_prompt, s.advantage.estimator, s.policy.loss
    trained = s.responses_per_iteration - int(s.responses_per_iteration * s.select.prune_rate)
    if s.task.name == "maths" and s.model.path is None:
        yield "model.path = none: task.name = maths needs a model that can read, expected a folder or a hub name"
    if s.policy.minibatches > trained:
        yield (
            f"policy.minibatches = {s.policy.minibatches}: expected at most the {trained} responses that an iteration "
            "trains on (rollout.prompts * rollout.samples_per_prompt, less what is pruned)"
        )
    groups = {
        f"advantage.estimator = {estimator}": s.estimator.compares,
        f"policy.loss = {loss}": s.loss.pairs,
        "select.dynamic_sampling = true": s.select.dynamic_sampling,
        f"select.prune_rate = {s.select.prune_rate:g}": s.select.prune_rate > 0 and s.select.scope == "question",
    }
    for what, wanted in groups.items():
        if wanted and samples < 2:
            yield (
                f"rollout.samples_per_prompt = {samples}: {what} compares responses to one question, expected 2 or more"
            )
    if s.loss.pairs != (s.estimator.rewards == "none"):
        yield (
            f"policy.loss = {loss} with advantage.estimator = {estimator}: DPO has pairs in place of advantages, "
            "expected both `dpo` and `none`, or neither"
        )
    if s.evaluation.problems == "search" and s.task.name == "maths":
        yield (
            "evaluation.problems = search: task.name = maths keeps none for it; name the set that settings are chosen "
            "by in task.maths.evaluate"
        )
    if s.evaluation.problems == "search" and isinstance(s.task, EmbeddedTaskSettings) and not s.task.problems("search"):
        yield "evaluation.problems = search: none are kept for it, expected task.held_out_for_search above 0"
    yield from _about_models(s)
    yield from _about_rewards(s)
    yield from _about_losses(s)
    yield from _about_values(s)
    yield from _about_engine(s)
    yield from _about_evaluation(s)


def _about_rewards(s: RunSections) -> Iterator[str]:
    estimator, grouped = s.advantage.estimator, s.estimator.compares
    moves = s.reference.ema > 0 or s.reference.refresh_every != "never"
    if s.reward.normalise != "none" and isinstance(s.advantage, GroupAdvantageSettings) and s.advantage.group_scale:
        yield (
            f"reward.normalise = {s.reward.normalise} with GRPO's division by the group's deviation: the second "
            "undoes the first; drop it, or set advantage.group_scale = false"
        )
    for name, given in {"truncated": s.reward.truncated, "overlong_share": s.reward.overlong_share}.items():
        if bootstraps(s) and given is not None:
            yield (
                f"reward.{name} = {given:g} with gae.bootstrap_truncated = true: a response cut at the limit is worth "
                f"V there, whatever its score; expected reward.{name} = none, or gae.bootstrap_truncated = false"
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
    if s.estimator.rewards == "score" and dense:
        yield (
            f"advantage.estimator = {estimator} with a reward on every token (kl.placement = reward, token_reward): "
            "its values are of the verifier's score alone; use kl.placement = loss"
        )
    if s.estimator.rewards == "token" and s.token_reward.kind != "none":
        yield f"token_reward.kind = {s.token_reward.kind}: {s.estimator.title} has no reward but a KL penalty"


def _about_losses(s: RunSections) -> Iterator[str]:
    loss, record = s.policy.loss, s.loss
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
        yield "compute.packing with compute.attention = eager: it would let responses see each other; use sdpa"


def _about_values(s: RunSections) -> Iterator[str]:
    if not s.has_critic:
        return
    if s.critic.init == "exact":
        for what in unlike_exact_values(s):
            yield f"critic.init = exact with {what} (docs/critics.md)"
        return
    if s.critic.init == "saved" and s.critic.path is None:
        yield "critic.init = saved without critic.path: expected the folder or the hub name of a critic"
    if s.critic.normalise_returns and s.starts_at_mean_score:
        yield (
            "critic.initial_value = mean-score with critic.normalise_returns: what such a critic learns has mean 0; "
            "expected critic.initial_value = 0"
        )
    yield from _about_new_critics(s)
    moved = {
        f"critic.offset = {s.critic.offset:g}": s.critic.offset != 0,
        "critic.scores = fitted": s.fits_reward_model,
    }
    for what in (what for what, said in moved.items() if said):
        if s.critic.bounded:
            yield f"{what} with critic.bounded: its head speaks through a sigmoid; expected critic.bounded = false"
        if s.critic.normalise_returns:
            yield (
                f"{what} with critic.normalise_returns: its head does not speak in units of reward; expected "
                "critic.normalise_returns = false"
            )
    steps, last = s.pretrain.steps, s.pretrain.max_steps
    if steps == "converge" and s.pretrain.patience < s.pretrain.evaluate_every:
        yield (
            f"pretrain.patience = {s.pretrain.patience}: it counts updates, and was counted in measurements before; "
            f"expected pretrain.evaluate_every = {s.pretrain.evaluate_every} or more"
        )
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


def _about_new_critics(s: RunSections) -> Iterator[str]:
    if s.critic.init != "new":
        return
    if s.lora.rank > 0:
        yield (
            f"critic.init = new with lora.rank = {s.lora.rank}: a new critic's own weights would stay random; expected "
            "lora.rank = 0"
        )
    if s.model.path is None:  # else the policy's size is known when it is loaded
        m = s.model
        width = m.hidden_size // m.heads
        policy = Size(m.hidden_size, m.intermediate_size, m.layers, m.heads, m.kv_heads, width)
        misfit = size_of(s.critic, policy).misfit
        if misfit is not None:
            yield misfit


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
