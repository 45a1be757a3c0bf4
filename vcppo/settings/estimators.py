"""The advantage estimators: one record each, which says all that others need to know of it.

What reads a critic, wants groups, discounts or costs continuations, which settings an estimator leaves unread and what
verl can do of it follows from here. A new estimator is a function in vcppo/rl/estimators.py and a record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from vcppo.settings.functions import NamedFunction

Reads = Literal["values", "groups", "step values"]


@dataclass(frozen=True)
class Estimator(NamedFunction):
    """One estimator, by what it computes and what it computes that from."""

    reads: frozenset[Reads]  # a critic's values, other responses to the same prompt, the sampled values of steps
    rewards: Literal["all", "token", "score", "none"]  # of the score and what tokens earn beside it, what it adds up
    gae_lambda: Literal["actor"] | float  # gae.lambda_actor, or the lambda that it amounts to
    settings: tuple[str, ...] = ("whiten", "clip")  # of the section advantage, those that it reads
    length_adaptive: bool = False  # gae.length_adaptive_alpha may make its lambda
    discounts: bool = False  # its advantages read gae.gamma
    bootstraps: bool = False  # V may stand for what a truncated response would have earned
    verl: str | None = None  # algorithm.adv_estimator
    not_in_verl: str = ""  # why verl cannot run it
    verl_whitens: bool = False  # verl lets our trainer whiten and clip what it computes

    @property
    def has_critic(self) -> bool:
        """True if a value model is trained for it."""
        return "values" in self.reads

    @property
    def compares(self) -> bool:
        """True if it compares responses to one prompt."""
        return "groups" in self.reads

    @property
    def samples_continuations(self) -> bool:
        """True if responses are continued from the ends of their steps."""
        return "step values" in self.reads

    @property
    def uses_lambda(self) -> bool:
        """True if it reads gae.lambda_actor."""
        return self.gae_lambda == "actor"


def _reads(*names: Reads) -> frozenset[Reads]:
    return frozenset(names)


ESTIMATORS: Mapping[str, Estimator] = {
    "gae": Estimator(
        title="GAE",
        source="arXiv:1506.02438",
        function="vcppo.rl.estimators:generalised",
        reads=_reads("values"),
        rewards="all",
        gae_lambda="actor",
        length_adaptive=True,
        discounts=True,
        bootstraps=True,
        verl="gae",
        verl_whitens=True,
    ),
    "td": Estimator(
        title="one-step temporal difference, DVPO's advantage centred",
        source="arXiv:2502.16944",
        function="vcppo.rl.estimators:generalised",
        reads=_reads("values"),
        rewards="all",
        gae_lambda=0.0,
        discounts=True,
        bootstraps=True,
        not_in_verl="it is gae with gae.lambda_actor = 0",
    ),
    "q": Estimator(
        title="DVPO's advantage as its paper states it",
        source="arXiv:2502.16944",
        function="vcppo.rl.estimators:action_values",
        reads=_reads("values"),
        rewards="all",
        gae_lambda=0.0,
        discounts=True,
        bootstraps=True,
        not_in_verl="no advantage is without a baseline",
    ),
    "released-dvpo": Estimator(
        title="DVPO's released code",
        source="microsoft/DKI_LLM at c090b7d",
        function="vcppo.rl.estimators:released_dvpo",
        reads=_reads("values"),
        rewards="token",
        gae_lambda="actor",
        not_in_verl="no estimator whitens values",
    ),
    "vine": Estimator(
        title="VinePPO",
        source="arXiv:2410.01679",
        function="vcppo.rl.estimators:steps",
        reads=_reads("step values"),
        rewards="score",
        gae_lambda=1.0,
        not_in_verl="nobody samples continuations",
    ),
    "return": Estimator(
        title="discounted return",
        source="Williams, 1992",
        function="vcppo.rl.estimators:returns",
        reads=_reads(),
        rewards="all",
        gae_lambda=1.0,
        discounts=True,
        not_in_verl="no trainer of ours whitens a return",
    ),
    "grpo": Estimator(
        title="GRPO",
        source="arXiv:2402.03300",
        function="vcppo.rl.estimators:group_relative",
        reads=_reads("groups"),
        rewards="all",
        gae_lambda=1.0,
        settings=("whiten", "clip", "group_scale"),
        verl="grpo",
    ),
    "rloo": Estimator(
        title="RLOO",
        source="arXiv:2402.14740",
        function="vcppo.rl.estimators:leave_one_out",
        reads=_reads("groups"),
        rewards="all",
        gae_lambda=1.0,
        verl="rloo",
    ),
    "none": Estimator(
        title="none: the loss compares pairs",
        source="arXiv:2305.18290",
        function="vcppo.rl.estimators:nothing",
        reads=_reads(),
        rewards="none",
        gae_lambda=1.0,
        settings=(),
        not_in_verl="there is no DPO",
    ),
}


def names_of(which: Callable[[Estimator], bool]) -> tuple[str, ...]:
    """The estimators of which something holds, in the order of the table.

    >>> names_of(lambda estimator: estimator.compares)
    ('grpo', 'rloo')
    """
    return tuple(name for name, estimator in ESTIMATORS.items() if which(estimator))
