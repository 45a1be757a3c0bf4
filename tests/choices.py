"""Assignments that several tests of the rules across settings begin with."""

import json

from vcppo.settings.kinds import layout
from vcppo.settings.loading import flatten
from vcppo.settings.run import RunSettings

GROUPS = ("rollout.prompts=12", "rollout.samples_per_prompt=8")
MEAN_SCORE = ("critic.init=policy", "critic.initial_value=mean-score")
GRPO = (*GROUPS, "advantage.estimator=grpo")
RLOO = (*GROUPS, "advantage.estimator=rloo")
DPO = (*GROUPS, "advantage.estimator=none", "policy.loss=dpo")
VINE = ("advantage.estimator=vine",)
TD = ("advantage.estimator=td",)
FROZEN = ("critic.update_every=never",)
SAVED = ("critic.init=saved", "critic.path=there")
EXACT = ("critic.init=exact",)
UNCLIPPED = ("policy.loss=unclipped",)
VLLM = ("engine.kind=vllm",)
SERVER = (*VLLM, "engine.mode=server")
THERE = (*SERVER, "engine.url=node3:7100")


def value(name: str) -> str:
    """A setting's own default as text: refused or not, that it is said is what matters."""
    at = flatten(RunSettings().model_dump(mode="json")).get(name, layout()[name].default)
    return "none" if at is None else json.dumps(at)


MATHS = ("task.name=maths", "model.path=m")
INTEGER = (*MATHS, "task.maths.answers=integer")
