"""The DPO run that makes RTO's reward, as settings of a run of its own."""

from vcppo.settings.loading import Layer, build_settings
from vcppo.settings.run import RunSettings


def preference_settings(settings: RunSettings) -> RunSettings:
    """The settings of the DPO run that makes RTO's reward: `method=dpo` on the same task, base and seed."""
    assert settings.token_reward.kind != "none"
    tree = settings.model_dump(
        mode="json",
        include={"seed", "base_seed", "micro_batch_tokens", "task", "model", "lora", "compute", "engine", "cold_start"},
    )
    of_run = {"method": "dpo", "steps": settings.token_reward.dpo_steps, "evaluation": {"every": 0}}
    tree |= {"rollout": settings.rollout.sampling, **of_run}
    return build_settings([Layer("token_reward", tree, shared=True)])
