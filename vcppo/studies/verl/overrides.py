"""A run's settings as verl's configuration, and every reason why verl cannot run them."""

import math
from collections.abc import Iterator
from typing import Any

from vcppo.settings.advantage import GroupAdvantageSettings
from vcppo.settings.loading import flatten
from vcppo.settings.optimiser import OptimiserSettings
from vcppo.settings.run import RunSettings
from vcppo.studies.verl import TRAINER
from vcppo.studies.verl.names import ACTOR, CRITIC, ESTIMATED, LOSSES, ONLY, OURS, ROLLOUT, as_text, listed

Overrides = dict[str, Any]  # verl's dotted names, with a plus where its schema has no such name
NEVER = 1e9  # as a clip range or a dual clip: never reached

AGGREGATIONS = {
    "token-mean": "token-mean",
    "sequence-mean": "seq-mean-token-mean",
    "fixed-length": "seq-mean-token-sum-norm",
}


def refusals(settings: RunSettings) -> Iterator[str]:
    """Yield every reason why verl cannot run these settings, each with what it could run."""
    flat = flatten(settings.model_dump(mode="json"))
    for name, only in ONLY.items():
        given = flat.get(name, only.value)  # a setting of a kind that the section is not of is in no record
        if given != only.value:
            yield f"{name} = {as_text(given)}: {only.why}; expected {as_text(only.value)}"
    if settings.has_critic and settings.critic.init == "new":
        yield "critic.init = new: verl builds no critic from settings; expected policy, reward-model or saved"
    if settings.model.path is None:
        yield "model.path = none: expected the folder or hub name of the policy that verl starts from"
    estimator, loss = settings.estimator, settings.loss
    for name, word, verls, why, known in (
        ("advantage.estimator", settings.advantage.estimator, estimator.verl, estimator.not_in_verl, ESTIMATED),
        ("policy.loss", settings.policy.loss, loss.verl, loss.not_in_verl, LOSSES),
    ):
        if verls is None:
            yield f"{name} = {word}: expected {listed(known)}; in verl {why}"
    whitens = ("none", "batch") if estimator.verl_whitens else ("none",)
    if settings.advantage.whiten not in whitens:
        yield f"advantage.whiten = {settings.advantage.whiten}: expected {' or '.join(whitens)}"
    if settings.advantage.clip is not None and not estimator.verl_whitens:
        yield f"advantage.clip = {settings.advantage.clip:g}: verl clips no advantage of {settings.advantage.estimator}"
    if settings.rollout.prompts % settings.policy.minibatches:
        yield (
            f"policy.minibatches = {settings.policy.minibatches}: expected a divisor of rollout.prompts = "
            f"{settings.rollout.prompts}, whose prompts verl divides"
        )
    optimisers: dict[str, OptimiserSettings] = {"policy": settings.policy}
    aggregations = {"policy": settings.policy.aggregation}
    if settings.critic.init == "exact":
        yield "critic.init = exact: verl's critic is a model"
    elif settings.has_critic:
        optimisers["critic"], aggregations["critic"] = settings.critic, settings.critic.aggregation
        if settings.pretrain.steps != 0:
            optimisers["pretrain"] = settings.pretrain
    for section, optimiser in optimisers.items():
        if optimiser.schedule == "linear":
            yield f"{section}.schedule = linear: expected constant or cosine"
    for section, aggregation in aggregations.items():
        if aggregation == "fixed-length" and settings.rollout.max_tokens is None:
            yield f"{section}.aggregation = fixed-length: expected rollout.max_tokens, the length that is divided by"


def rl_overrides(settings: RunSettings) -> Overrides:
    """Return verl's configuration of the RL run. The settings must be free of `refusals`."""
    s = settings
    scale = s.advantage.group_scale if isinstance(s.advantage, GroupAdvantageSettings) else True
    updates_per_step, bounds = s.policy.epochs * s.policy.minibatches, s.policy.bounds
    mini_batch = s.rollout.prompts // s.policy.minibatches
    overrides: Overrides = {
        **_common(s),
        "trainer.total_training_steps": s.steps,
        "trainer.total_epochs": s.steps,  # an epoch has a step or more: this never ends the run before
        "data.train_batch_size": s.rollout.prompts,
        f"{ROLLOUT}.n": s.rollout.samples_per_prompt,
        "algorithm.adv_estimator": ESTIMATED[s.advantage.estimator],
        "algorithm.norm_adv_by_std_in_grpo": scale,
        "algorithm.use_kl_in_reward": s.kl.placement == "reward",
        f"{ACTOR}.use_kl_loss": s.kl.placement == "loss",
        "critic.enable": s.has_critic,
        **optimiser_overrides(ACTOR, s.policy, updates_per_step),
        f"{ACTOR}.ppo_epochs": s.policy.epochs,
        f"{ACTOR}.ppo_mini_batch_size": mini_batch,
        f"{ACTOR}.data_loader_seed": s.seed,
        f"{ACTOR}.policy_loss.loss_mode": LOSSES[s.policy.loss],
        f"{ACTOR}.clip_ratio": bounds["clip_low"],
        f"{ACTOR}.clip_ratio_low": bounds["clip_low"],
        f"{ACTOR}.clip_ratio_high": bounds["clip_high"],
        f"{ACTOR}.clip_ratio_c": NEVER if bounds["dual_clip"] is None else bounds["dual_clip"],
        **_aggregation(ACTOR, s.policy.aggregation, s.rollout.max_tokens),
        f"{ACTOR}.entropy_coeff": s.policy.entropy_coefficient,
        "trainer.test_freq": s.evaluation.every or s.steps,
        f"{ROLLOUT}.val_kwargs.n": s.evaluation.samples,
        f"{ROLLOUT}.val_kwargs.do_sample": s.evaluation.temperature > 0,
        f"{ROLLOUT}.val_kwargs.temperature": s.evaluation.temperature,
        f"{ROLLOUT}.val_kwargs.top_p": s.evaluation.top_p,
        "trainer.val_before_train": s.evaluation.every > 0,
    }
    if s.kl.placement == "reward":
        overrides |= {"algorithm.kl_ctrl.kl_coef": s.kl.coefficient, "algorithm.kl_penalty": s.kl.estimator}
    if s.kl.placement == "loss":
        overrides |= {f"{ACTOR}.kl_loss_coef": s.kl.coefficient, f"{ACTOR}.kl_loss_type": s.kl.estimator}
    if s.has_critic and s.critic.init != "exact":
        overrides |= {
            **optimiser_overrides(CRITIC, s.critic, updates_per_step * s.critic.updates_per_policy_update),
            f"{CRITIC}.ppo_epochs": s.policy.epochs * s.critic.updates_per_policy_update,
            f"{CRITIC}.ppo_mini_batch_size": mini_batch,
            f"{CRITIC}.cliprange_value": s.critic.value_clip_range if s.critic.value_loss == "clipped" else NEVER,
            "trainer.critic_warmup": s.critic.policy_starts_after + 1 if s.critic.policy_starts_after else 0,
            **_gae(s),
        }
    return overrides


def pretraining_overrides(settings: RunSettings) -> Overrides:
    """Return verl's configuration of the run before it, in which only the critic learns."""
    s, plan = settings, settings.pretrain
    limit = plan.max_steps if plan.steps == "converge" else plan.steps
    return {
        **_common(s),
        "trainer.total_training_steps": limit,
        "trainer.total_epochs": limit,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "data.train_batch_size": plan.batch,
        f"{ROLLOUT}.n": 1,
        "algorithm.adv_estimator": "gae",
        "algorithm.use_kl_in_reward": False,
        f"{ACTOR}.use_kl_loss": False,
        f"{ACTOR}.ppo_mini_batch_size": plan.batch,
        "critic.enable": True,
        **optimiser_overrides(CRITIC, plan, 1),
        f"{CRITIC}.ppo_epochs": 1,
        f"{CRITIC}.ppo_mini_batch_size": plan.batch,
        f"{CRITIC}.cliprange_value": NEVER,
        f"{OURS}.pretrain.steps": plan.steps,
        f"{OURS}.pretrain.held_out": round(plan.held_out / (plan.pool + plan.held_out), 6),
        f"{OURS}.pretrain.evaluate_every": plan.evaluate_every,
        f"{OURS}.pretrain.seed": s.seed,
        **(
            {f"{OURS}.pretrain.patience": plan.patience, f"{OURS}.pretrain.min_delta": plan.min_delta}
            if plan.steps == "converge"
            else {}
        ),
    }


def _common(s: RunSettings) -> Overrides:
    """Return what both runs have in common."""
    overrides: Overrides = {
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": TRAINER,
        "trainer.logger": ["console", "file"],
        "trainer.save_freq": s.record.checkpoint_every,
        "actor_rollout_ref.model.path": s.model.path,
        f"{ROLLOUT}.temperature": s.rollout.temperature,
        f"{ROLLOUT}.top_p": s.rollout.top_p,
        f"{ROLLOUT}.seed": s.seed,
        "data.seed": s.seed,
        "algorithm.gamma": s.gae.gamma,
        f"{OURS}.positions_every": s.record.positions_every,
    }
    if s.rollout.max_tokens is not None:
        overrides["data.max_response_length"] = s.rollout.max_tokens
    if s.has_critic:
        overrides |= _aggregation(CRITIC, s.critic.aggregation, s.rollout.max_tokens)
        overrides[f"{CRITIC}.data_loader_seed"] = s.seed
        if s.critic.init == "policy":
            overrides["critic.model.path"] = s.model.path
        if s.critic.init == "saved":
            overrides["critic.model.path"] = s.critic.path
    return overrides


def _gae(s: RunSettings) -> Overrides:
    overrides: Overrides = {
        "algorithm.lam": s.gae.lambda_actor,  # of verl's estimate, which ours replaces
        f"{OURS}.lambda_critic": s.gae.lambda_critic,
        f"{OURS}.whiten": s.advantage.whiten,
    }
    if s.gae.length_adaptive_alpha is None:
        overrides[f"{OURS}.lambda_actor"] = s.gae.lambda_actor
    else:
        overrides[f"{OURS}.length_adaptive_alpha"] = s.gae.length_adaptive_alpha
    if s.advantage.clip is not None:
        overrides[f"{OURS}.clip"] = s.advantage.clip
    return overrides


def optimiser_overrides(place: str, optimiser: OptimiserSettings, updates_per_step: int) -> Overrides:
    """Return AdamW and its schedule for verl's FSDP engine at `place`; its scheduler moves once per step."""
    optim = f"{place}.optim"
    return {
        f"{optim}.lr": optimiser.learning_rate,
        f"{optim}.lr_scheduler_type": optimiser.schedule,
        f"{optim}.lr_warmup_steps": math.ceil(optimiser.warmup_steps / updates_per_step),
        f"{optim}.betas": [optimiser.adam_beta1, optimiser.adam_beta2],
        f"+{optim}.override_optimizer_config.eps": optimiser.adam_epsilon,
        f"{optim}.weight_decay": optimiser.weight_decay,
        f"{optim}.clip_grad": optimiser.max_grad_norm,
    }


def _aggregation(place: str, aggregation: str, limit: int | None) -> Overrides:
    overrides: Overrides = {f"{place}.loss_agg_mode": AGGREGATIONS[aggregation]}
    if aggregation == "fixed-length":
        overrides[f"{place}.loss_scale_factor"] = limit
    return overrides
