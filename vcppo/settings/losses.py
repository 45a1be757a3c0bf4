"""The policy losses: one record each, which says all that others need to know of it.

Which settings a loss reads and which it makes meaningless, whether it takes importance weights or an early stop, what
it costs and what verl calls it follows from here. A new loss is a function in vcppo/maths/losses.py and a record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vcppo.settings.functions import NamedFunction

Reads = Literal["advantages", "ratio", "reference", "pairs"]


@dataclass(frozen=True)
class PolicyLoss(NamedFunction):
    """One loss, by what it computes and what it computes that from."""

    reads: frozenset[Reads]  # beside log-probabilities; pairs: of a right and a wrong response
    settings: tuple[str, ...]  # of the section policy, those that not every loss reads
    clips_ratio: bool = False
    linear: bool = True  # in its advantages, so that importance weights may multiply them
    may_stop_early: bool = True  # the policy that sampled has a part in it, so that drifting from it means something
    reference_stays: bool = False  # its target is the first policy's, the reference must not move
    metrics: tuple[str, ...] = ()  # logged beside those of every loss
    ignores: Mapping[str, str] = field(
        default_factory=dict
    )  # settings of other sections that it leaves unread, and why
    excludes: Mapping[str, str] = field(default_factory=dict)  # settings that must be left alone beside it, and why
    verl: str | None = None  # policy_loss.loss_mode
    not_in_verl: str = ""  # why verl cannot run it

    @property
    def needs_reference(self) -> bool:
        """True if it reads log-probabilities under the reference."""
        return "reference" in self.reads

    @property
    def pairs(self) -> bool:
        """True if it compares two responses, so that their weights take one more forward pass."""
        return "pairs" in self.reads


def _reads(*names: Reads) -> frozenset[Reads]:
    return frozenset(names)


_VERDICTS = "DPO reads verdicts, not rewards"

POLICY_LOSSES: Mapping[str, PolicyLoss] = {
    "clip": PolicyLoss(
        title="PPO's clipped surrogate",
        source="arXiv:1707.06347",
        function="vcppo.maths.losses:clipped_surrogate",
        reads=_reads("advantages", "ratio"),
        settings=("clip_low", "clip_high", "dual_clip", "aggregation"),
        clips_ratio=True,
        metrics=("policy/dual_clip_fraction",),
        verl="vanilla",
    ),
    "unclipped": PolicyLoss(
        title="ESPO's surrogate",
        source="arXiv:2202.00079",
        function="vcppo.maths.losses:unclipped_surrogate",
        reads=_reads("advantages", "ratio"),
        settings=("aggregation",),
        not_in_verl="the surrogate is clipped",
    ),
    "reinforce": PolicyLoss(
        title="REINFORCE",
        source="Williams, 1992",
        function="vcppo.maths.losses:reinforce",
        reads=_reads("advantages"),
        settings=("aggregation",),
        not_in_verl="every loss corrects for the policy that sampled",
    ),
    "apa": PolicyLoss(
        title="APA",
        source="arXiv:2306.02231",
        function="vcppo.maths.losses:squared_distance_to_target",
        reads=_reads("advantages", "reference"),
        settings=("advantage_temperature", "aggregation"),
        linear=False,
        may_stop_early=False,
        reference_stays=True,
        not_in_verl="there is no such loss",
    ),
    "awr": PolicyLoss(
        title="AWR",
        source="arXiv:1910.00177",
        function="vcppo.maths.losses:advantage_weighted",
        reads=_reads("advantages"),
        settings=("advantage_temperature", "aggregation"),
        linear=False,
        not_in_verl="there is no such loss",
    ),
    "gspo": PolicyLoss(
        title="GSPO",
        source="arXiv:2507.18071",
        function="vcppo.maths.losses:sequence_clipped_surrogate",
        reads=_reads("advantages", "ratio"),
        settings=("clip_low", "clip_high", "aggregation"),
        clips_ratio=True,
        verl="gspo",
    ),
    "cispo": PolicyLoss(
        title="CISPO",
        source="arXiv:2506.13585",
        function="vcppo.maths.losses:clipped_weight",
        reads=_reads("advantages", "ratio"),
        settings=("clip_low", "clip_high", "aggregation"),
        clips_ratio=True,
        verl="cispo",
    ),
    "dpo": PolicyLoss(
        title="DPO",
        source="arXiv:2305.18290",
        function="vcppo.maths.losses:preference_pull",
        reads=_reads("reference", "pairs"),
        settings=("dpo_beta",),
        linear=False,
        may_stop_early=False,
        metrics=("policy/preference_accuracy", "policy/preference_margin"),
        ignores={
            **dict.fromkeys(
                ("reward.normalise", "reward.clip", "reward.overlong_share", "reward.truncated"), _VERDICTS
            ),
            "select.drop_truncated": "DPO takes every pair of a right and a wrong response",
        },
        excludes={
            "kl.placement": "policy.dpo_beta is its weight of the KL",
            "token_reward.kind": _VERDICTS,
            "select.prune_rate": "pairs are made of right and wrong responses, not ranked ones",
        },
        not_in_verl="there is no DPO",
    ),
}


def names_of(which: Callable[[PolicyLoss], bool]) -> tuple[str, ...]:
    """The losses of which something holds, in the order of the table.

    >>> names_of(lambda loss: loss.clips_ratio)
    ('clip', 'gspo', 'cispo')
    """
    return tuple(name for name, loss in POLICY_LOSSES.items() if which(loss))
