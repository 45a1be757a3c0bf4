"""The models of an RL run, each on its device and in its shards; its stage loads them."""

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Models:
    """The models that are trained, sampled from and read; None where the method has none."""

    policy: PreTrainedModel
    rollout_policy: PreTrainedModel  # samples: the policy itself, or a copy that is refreshed now and then
    critic: PreTrainedModel | None = None
    reference: PreTrainedModel | None = None  # KL penalties, APA, DPO and RTO compare with it
    dpo_policy: PreTrainedModel | None = None  # RTO's reward is made of it
