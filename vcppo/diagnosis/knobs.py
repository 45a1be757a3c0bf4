"""Settings by trainer: the same knob as each trainer calls it, and which of them lack it.

Read in the trainers' sources; `LOOKED_AT` says in which version.
"""

from typing import Literal

from vcppo.diagnosis.schema import Knob

Topic = Literal["value-pretraining", "lambda-actor", "lambda-critic", "critic-start", "reward-units"]

LOOKED_AT = {
    "vcppo": "this version",
    "verl": "0.9.1, and main of 2026-08-22 (1dda039)",
    "NeMo-RL": "main of 2026-08-22 (7ea279a), 0.6.0",
    "OpenRLHF": "0.11.2, and main of 2026-08-13 (3c3be62)",
    "TRL": "main of 2026-07-24 (f2cd577), 1.10.0.dev: trl.experimental.ppo",
    "slime": "main of 2026-08-21 (624b824), 0.3.1",
}

KNOBS: dict[Topic, tuple[Knob, ...]] = {
    "value-pretraining": (
        Knob(trainer="vcppo", setting="pretrain.steps = converge", note="Monte-Carlo returns of the fixed policy"),
        Knob(
            trainer="verl",
            setting="trainer.critic_warmup = N",
            note="N - 1 critic-only steps, on returns of algorithm.lam: set that to 1; vcppo's plugin: "
            "+algorithm.vcppo.pretrain.*",
        ),
        Knob(
            trainer="NeMo-RL",
            setting="ppo.policy_training_start_step = N",
            note="N critic-only steps; set ppo.adv_estimator.gae_lambda_value = 1.0 with it",
        ),
        Knob(
            trainer="OpenRLHF",
            setting="--critic.freezing_steps N",
            note="N + 1 critic-only steps, on returns of --algo.advantage.lambd: set that to 1",
        ),
        Knob(trainer="TRL", setting=None, note="no critic-only steps: give it a pretrained value_model"),
        Knob(
            trainer="slime",
            setting="--num-critic-only-steps N",
            note="on returns of --lambd: set that to 1; N >= --num-rollout trains the critic alone",
        ),
    ),
    "lambda-actor": (
        Knob(trainer="vcppo", setting="gae.lambda_actor = {actor}"),
        Knob(
            trainer="verl",
            setting="algorithm.lam = {actor}",
            note="the critic's targets follow it; with vcppo's plugin +algorithm.vcppo.lambda_actor = {actor} alone",
        ),
        Knob(trainer="NeMo-RL", setting="ppo.adv_estimator.gae_lambda_policy = {actor}", note="null: gae_lambda"),
        Knob(trainer="OpenRLHF", setting="--algo.advantage.lambd {actor}", note="the critic's targets follow it"),
        Knob(trainer="TRL", setting="PPOConfig.lam = {actor}", note="the critic's targets follow it"),
        Knob(trainer="slime", setting="--lambd {actor}", note="the critic's targets follow it"),
    ),
    "lambda-critic": (
        Knob(trainer="vcppo", setting="gae.lambda_critic = 1"),
        Knob(
            trainer="verl",
            setting=None,
            note="one lambda for both, algorithm.lam; with vcppo's plugin +algorithm.vcppo.lambda_critic = 1",
        ),
        Knob(trainer="NeMo-RL", setting="ppo.adv_estimator.gae_lambda_value = 1", note="null: gae_lambda"),
        Knob(trainer="OpenRLHF", setting=None, note="one lambda for both, --algo.advantage.lambd"),
        Knob(trainer="TRL", setting=None, note="one lambda for both, PPOConfig.lam"),
        Knob(
            trainer="slime",
            setting=None,
            note="one lambda for both, --lambd; --custom-advantage-function-path is given the values and can have two",
        ),
    ),
    "critic-start": (
        Knob(trainer="vcppo", setting="critic.init", note="saved, with critic.path, takes any critic"),
        Knob(trainer="verl", setting="critic.model.path"),
        Knob(trainer="NeMo-RL", setting="value.model_name"),
        Knob(
            trainer="OpenRLHF",
            setting="--critic.model_name_or_path",
            note="the value head is drawn anew if this is the actor's path",
        ),
        Knob(trainer="TRL", setting="PPOTrainer(value_model=...)"),
        Knob(trainer="slime", setting="--megatron-config-path", note="overrides.load of the entry with role: critic"),
    ),
    "reward-units": (
        Knob(
            trainer="vcppo",
            setting="critic.scores = fitted",
            note="a reward model's scores in units of reward; critic.bounded = true keeps values in its range",
        ),
        Knob(trainer="verl", setting=None, note="values are what the head of critic.model.path says"),
        Knob(
            trainer="NeMo-RL",
            setting="ppo.reward_scaling",
            note="source_min, source_max to target_min, target_max: bring rewards to the critic's units",
        ),
        Knob(
            trainer="OpenRLHF",
            setting="--reward.normalize_enable",
            note="rewards and values by stored mean and deviation, of a critic that was trained so",
        ),
        Knob(trainer="TRL", setting=None, note="values are what the head of value_model says"),
        Knob(trainer="slime", setting=None, note="values are what the critic's head says"),
    ),
}


def knobs_for(*topics: Topic, lambda_actor: float = 1.0) -> tuple[Knob, ...]:
    """All trainers' knobs of these topics, topic by topic.

    Args:
        lambda_actor: the number that "lambda-actor" sets; the critic's is 1, Monte-Carlo returns.
    """
    knobs = (knob for topic in topics for knob in KNOBS[topic])
    return tuple(
        knob.model_copy(update={name: _filled(getattr(knob, name), lambda_actor) for name in ("setting", "note")})
        for knob in knobs
    )


def _filled(text: str | None, lambda_actor: float) -> str | None:
    return None if text is None else text.replace("{actor}", f"{lambda_actor:g}")
