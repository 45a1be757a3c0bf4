"""Our settings' names beside verl's: what each becomes in verl's configuration, or why it becomes nothing.

Every setting of vcppo is in exactly one of three tables: MAPPED, ONLY (one value of it is what verl does, any other is
refused) and APART (verl has its own setting for it, or none). docs/verl.md prints them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vcppo.settings.critic_size import CRITIC_SIZE
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.loading import known_names
from vcppo.settings.losses import POLICY_LOSSES

ACTOR, CRITIC, ROLLOUT = "actor_rollout_ref.actor", "critic", "actor_rollout_ref.rollout"
OURS = "+algorithm.vcppo"
_NOT_EXACT = "of a critic whose values are computed; verl's is a model"
LOSSES = {name: loss.verl for name, loss in POLICY_LOSSES.items() if loss.verl is not None}
ESTIMATED = {name: estimator.verl for name, estimator in ESTIMATORS.items() if estimator.verl is not None}


def listed(names: Iterable[str]) -> str:
    """Join names as in a sentence.

    >>> listed(["clip", "gspo", "cispo"])
    'clip, gspo or cispo'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class Mapped:
    """A setting that verl knows: in the RL run, in the run of value pretraining before it, or in both."""

    rl: tuple[str, ...] = ()
    pretraining: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Only:
    """A setting of which verl does one thing only."""

    value: Any
    why: str


def _optimiser(section: str, *, pretraining: bool = False) -> dict[str, Mapped]:
    """Map the optimiser's settings of one of our sections to verl's."""
    place = ACTOR if section == "policy" else CRITIC
    optim = f"{place}.optim"
    names = {
        "learning_rate": (f"{optim}.lr",),
        "schedule": (f"{optim}.lr_scheduler_type",),
        "warmup_steps": (f"{optim}.lr_warmup_steps",),
        "adam_beta1": (f"{optim}.betas",),
        "adam_beta2": (f"{optim}.betas",),
        "adam_epsilon": (f"+{optim}.override_optimizer_config.eps",),
        "weight_decay": (f"{optim}.weight_decay",),
        "max_grad_norm": (f"{optim}.clip_grad",),
    }
    notes = {
        "schedule": "constant or cosine: FSDP in verl has no linear decay",
        "warmup_steps": "verl counts steps of its trainer: rounded up",
    }
    mapped = {}
    for name, keys in names.items():
        note = notes.get(name, "")
        mapped[f"{section}.{name}"] = Mapped((), keys, note) if pretraining else Mapped(keys, (), note)
    return mapped


MAPPED: Mapping[str, Mapped] = {
    "seed": Mapped(
        ("data.seed", f"{ROLLOUT}.seed", f"{ACTOR}.data_loader_seed", f"{CRITIC}.data_loader_seed"),
        ("data.seed", f"{ROLLOUT}.seed", f"{CRITIC}.data_loader_seed", f"{OURS}.pretrain.seed"),
    ),
    "steps": Mapped(("trainer.total_training_steps", "trainer.total_epochs")),
    "model.path": Mapped(("actor_rollout_ref.model.path",), ("actor_rollout_ref.model.path",), "needed"),
    "rollout.prompts": Mapped(("data.train_batch_size",)),
    "rollout.samples_per_prompt": Mapped((f"{ROLLOUT}.n",), note="pretraining asks for one"),
    "rollout.temperature": Mapped((f"{ROLLOUT}.temperature",), (f"{ROLLOUT}.temperature",)),
    "rollout.top_p": Mapped((f"{ROLLOUT}.top_p",), (f"{ROLLOUT}.top_p",)),
    "rollout.max_tokens": Mapped(
        ("data.max_response_length",), ("data.max_response_length",), "none leaves verl's data.max_response_length"
    ),
    "gae.gamma": Mapped(("algorithm.gamma",), ("algorithm.gamma",)),
    "gae.lambda_actor": Mapped(("algorithm.lam", f"{OURS}.lambda_actor")),
    "gae.lambda_critic": Mapped((f"{OURS}.lambda_critic",)),
    "gae.length_adaptive_alpha": Mapped((f"{OURS}.length_adaptive_alpha",)),
    "advantage.estimator": Mapped(("algorithm.adv_estimator", "critic.enable"), note=listed(ESTIMATED)),
    "advantage.whiten": Mapped((f"{OURS}.whiten",), note="none or batch, for gae; others are not whitened"),
    "advantage.clip": Mapped((f"{OURS}.clip",), note="for gae"),
    "advantage.group_scale": Mapped(("algorithm.norm_adv_by_std_in_grpo",)),
    "kl.placement": Mapped(("algorithm.use_kl_in_reward", f"{ACTOR}.use_kl_loss")),
    "kl.coefficient": Mapped(("algorithm.kl_ctrl.kl_coef", f"{ACTOR}.kl_loss_coef")),
    "kl.estimator": Mapped(("algorithm.kl_penalty", f"{ACTOR}.kl_loss_type")),
    **_optimiser("policy"),
    "policy.epochs": Mapped((f"{ACTOR}.ppo_epochs", f"{CRITIC}.ppo_epochs")),
    "policy.minibatches": Mapped(
        (f"{ACTOR}.ppo_mini_batch_size", f"{CRITIC}.ppo_mini_batch_size"), note="verl counts the prompts of one"
    ),
    "policy.loss": Mapped((f"{ACTOR}.policy_loss.loss_mode",), note=listed(LOSSES)),
    "policy.clip_low": Mapped((f"{ACTOR}.clip_ratio_low", f"{ACTOR}.clip_ratio")),
    "policy.clip_high": Mapped((f"{ACTOR}.clip_ratio_high",)),
    "policy.dual_clip": Mapped(
        (f"{ACTOR}.clip_ratio_c",), note="verl's is on by default, at 3; none puts it out of reach"
    ),
    "policy.aggregation": Mapped((f"{ACTOR}.loss_agg_mode", f"{ACTOR}.loss_scale_factor")),
    "policy.entropy_coefficient": Mapped((f"{ACTOR}.entropy_coeff",)),
    "critic.init": Mapped(
        ("critic.model.path",),
        ("critic.model.path",),
        "policy: model.path, with a head of verl's; reward-model: give --verl critic.model.path=FOLDER",
    ),
    "critic.path": Mapped(("critic.model.path",), ("critic.model.path",), "of `critic.init = saved`"),
    **_optimiser("critic"),
    "critic.updates_per_policy_update": Mapped((f"{CRITIC}.ppo_epochs",), note="verl repeats the whole pass instead"),
    "critic.policy_starts_after": Mapped(
        ("trainer.critic_warmup",), note="verl's N is N - 1 such iterations: one is added"
    ),
    "critic.value_loss": Mapped((f"{CRITIC}.cliprange_value",), note="mse: a range that is never reached"),
    "critic.value_clip_range": Mapped((f"{CRITIC}.cliprange_value",)),
    "critic.aggregation": Mapped(
        (f"{CRITIC}.loss_agg_mode", f"{CRITIC}.loss_scale_factor"),
        (f"{CRITIC}.loss_agg_mode", f"{CRITIC}.loss_scale_factor"),
        "always said, for verl's default is the actor's",
    ),
    "pretrain.steps": Mapped((), (f"{OURS}.pretrain.steps", "trainer.total_training_steps", "trainer.total_epochs")),
    "pretrain.max_steps": Mapped((), ("trainer.total_training_steps", "trainer.total_epochs"), "of `converge`"),
    "pretrain.batch": Mapped(
        (),
        ("data.train_batch_size", f"{CRITIC}.ppo_mini_batch_size", f"{ACTOR}.ppo_mini_batch_size"),
        "held-out responses included",
    ),
    "pretrain.held_out": Mapped((), (f"{OURS}.pretrain.held_out",), "as a share: held_out / (pool + held_out)"),
    "pretrain.pool": Mapped((), (f"{OURS}.pretrain.held_out",), "only in that share: every step samples anew"),
    "pretrain.evaluate_every": Mapped((), (f"{OURS}.pretrain.evaluate_every",)),
    "pretrain.patience": Mapped((), (f"{OURS}.pretrain.patience",)),
    "pretrain.min_delta": Mapped((), (f"{OURS}.pretrain.min_delta",)),
    **_optimiser("pretrain", pretraining=True),
    "evaluation.samples": Mapped((f"{ROLLOUT}.val_kwargs.n",)),
    "evaluation.every": Mapped(("trainer.test_freq",), note="0: at the end only"),
    "evaluation.temperature": Mapped((f"{ROLLOUT}.val_kwargs.temperature",)),
    "evaluation.top_p": Mapped((f"{ROLLOUT}.val_kwargs.top_p",)),
    "record.checkpoint_every": Mapped(("trainer.save_freq",), ("trainer.save_freq",)),
    "record.positions_every": Mapped((f"{OURS}.positions_every",), (f"{OURS}.positions_every",)),
}  # fmt: skip

ONLY: Mapping[str, Only] = {
    "gae.bootstrap_truncated": Only(False, "verl does not say which responses were cut"),
    "rollout.refresh_every": Only(1, "verl's rollout engine has the newest policy in every step"),
    "critic.update_every": Only(1, "verl trains the critic in every step"),
    "critic.initial_value": Only(0.0, "verl draws a head as transformers does"),
    "pretrain.gae_lambda": Only(1.0, "our trainer for verl pretrains on Monte-Carlo returns"),
    "critic.bounded": Only(False, "verl's critic has no range"),
    "critic.offset": Only(0.0, "verl reads a critic as it is"),
    "critic.profile": Only(None, "verl reads a critic as it is"),
    "critic.scores": Only("raw", "verl reads a critic as it is"),
    "critic.unseen": Only("none", _NOT_EXACT),
    "critic.sight": Only(1.0, _NOT_EXACT),
    "critic.blur": Only(0.0, _NOT_EXACT),
    "lora.rank": Only(0, "use --verl actor_rollout_ref.model.lora_rank=N, and critic.model.lora_rank"),
    "critic.normalise_returns": Only(False, "verl has none"),
    "policy.positive_nll": Only(0.0, "verl has no such loss"),
    "policy.demonstration_nll": Only(0.0, "verl has no such loss"),
    "early_stop.deviation": Only("none", "verl does all updates of a step"),
    "token_reward.kind": Only("none", "verl has no reward model of tokens"),
    "reference.ema": Only(0.0, "verl's reference does not move"),
    "reference.refresh_every": Only("never", "verl's reference does not move"),
    "reward.truncated": Only(None, "verl's reward function decides"),
    "reward.overlong_share": Only(None, "use --verl reward.reward_manager.name=dapo"),
    "reward.normalise": Only("none", "verl has none"),
    "reward.clip": Only(None, "verl has none"),
    "select.prune_rate": Only(0.0, "verl has none"),
    "select.dynamic_sampling": Only(False, "use --verl algorithm.filter_groups.enable=True"),
    "select.drop_truncated": Only(False, "verl has none"),
}

_REWARD = "verl's reward function: --verl reward.custom_reward_function.path=FILE"
_UNUSED = "read only beside a setting that verl does not have"
APART: Mapping[str, str] = {
    "method": "a name for other settings",
    "arm": "a name; verl's experiment is called after the cell",
    "base_seed": "cold start and reward model are made before, by vcppo or otherwise",
    "micro_batch_tokens": f"--verl {ACTOR}.ppo_max_token_len_per_gpu=N, and critic.ppo_max_token_len_per_gpu",
    "task.": "verl's data: --verl data.train_files=FILE --verl data.val_files=FILE",
    "model.": "the shape is that of model.path",
    "cold_start.": "made before; model.path is its result",
    "reward_model.": "made before; critic.model.path is its result",
    "compute.": "verl's engines have their own, for one actor_rollout_ref.model.enable_gradient_checkpointing",
    "lora.": "verl has its own: --verl actor_rollout_ref.model.lora_alpha=N",
    "mismatch.": "--verl algorithm.rollout_correction.rollout_is=token, and rollout_is_threshold",
    "evaluation.responses_at_once": "verl has its own: data.val_batch_size",
    "engine.": f"--verl {ROLLOUT}.name=vllm|sglang and its other settings",
    "reward.correct": _REWARD,
    "reward.wrong": _REWARD,
    "reward.unreadable": _REWARD,
    "reward.overlong_penalty": _UNUSED,
    "token_reward.": _UNUSED,
    "select.": _UNUSED,
    "vine.": _UNUSED,
    "early_stop.": _UNUSED,
    "policy.advantage_temperature": _UNUSED,
    "policy.dpo_beta": _UNUSED,
    "pretrain.held_out_prompts": "held-out prompts are never learnt from, whatever this says",
    "pretrain.checkpoints": "verl's checkpoints: --verl trainer.save_freq=N",
    **dict.fromkeys((f"critic.{name}" for name in CRITIC_SIZE), "of a new critic, which verl builds from no settings"),
    "pretrain.fresh_rollouts": "verl samples new responses for every update, whatever this says",
    "guard.": "verl has none; for early warnings: --verl +algorithm.vcppo.on_warning=stop",
    "evaluation.problems": "verl's data: --verl data.val_files=FILE",
    "evaluation.samples_during": "every evaluation has evaluation.samples",
    "evaluation.seed": "verl's evaluation has no seed of its own",
    "record.": "verl has its own: trainer.rollout_data_dir, trainer.log_val_generations",
}


def counterpart(name: str) -> Mapped | Only | str:
    """Return a setting's counterpart in verl: its names, the one value that verl has, or why there is none."""
    if name in MAPPED:
        return MAPPED[name]
    if name in ONLY:
        return ONLY[name]
    section = f"{name.split('.')[0]}."
    return APART[name] if name in APART else APART[section]


def our_name(verl_name: str) -> str | None:
    """Return our setting that maps to this one of verl's, None if none does."""
    bare = verl_name.lstrip("+")
    for name, mapped in MAPPED.items():
        if bare in {key.lstrip("+") for key in (*mapped.rl, *mapped.pretraining)}:
            return name
    return None


def table() -> str:
    """Return every setting with its counterpart, as the Markdown that docs/verl.md holds."""
    lines = ["| vcppo | verl, RL run | verl, value pretraining | remark |", "|---|---|---|---|"]
    for name in known_names():
        other = counterpart(name)
        if isinstance(other, Mapped):
            keys = ["<br>".join(f"`{key}`" for key in side) for side in (other.rl, other.pretraining)]
            lines.append(f"| `{name}` | {keys[0]} | {keys[1]} | {other.note} |")
    lines += ["", "| vcppo | verl does only | why |", "|---|---|---|"]
    lines += [f"| `{name}` | {as_text(only.value)} | {only.why} |" for name, only in ONLY.items()]
    lines += ["", "| vcppo | instead |", "|---|---|"]
    lines += [
        f"| `{name.removesuffix('.') + ('.*' if name.endswith('.') else '')}` | {why} |" for name, why in APART.items()
    ]
    return "\n".join(lines)


def as_text(value: Any) -> str:
    """Return a value as in a settings file."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
