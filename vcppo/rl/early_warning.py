"""Early warnings of an RL run: one line when a rule is broken for the first time, and what every iteration says of all.

The rules are those of vcppo/maths/early_warning.py, on all responses that an iteration sampled and on its alignment.
"""

import dataclasses
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

from vcppo.maths.early_warning import RULES, Observed, alignment_evidence, beginning, warnings_of
from vcppo.models.distributed import world
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, credit_of


class EarlyWarning:
    """Measurements of a run so far, and the rules that it has broken.

    Attributes:
        since: by rule, the iteration that broke it first.
    """

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        self._run: list[Observed] = []

    def watch(self, now: Observed, *, step: int, advice: Callable[[str], str]) -> dict[str, float]:
        """Return the metrics to log: `early_warning/RULE`, 1 where the iteration breaks it, and the evidence so far.

        Args:
            now: what the iteration measured. advice: what to set, by rule, as the line ends.
        """
        self._run.append(now)
        broken = warnings_of(self._run)
        for rule in broken:
            if rule not in self.since:
                self.since[rule] = step
                if world().is_main:
                    what, remedy = self._sentence(rule), advice(rule)
                    print(f"iteration {step}: early warning: {what}; {remedy}", file=sys.stderr)
        evidence = {} if math.isnan(now.score_z) else {"alignment/evidence_z": alignment_evidence(self._run)}
        return {**{f"early_warning/{rule}": float(rule in broken) for rule in RULES}, **evidence}

    def state(self) -> dict[str, Any]:
        """Return all that resuming needs."""
        return {"since": self.since, "run": [dataclasses.astuple(one) for one in self._run]}

    def load(self, state: Mapping[str, Any], iterations: int) -> None:
        """Restore from what `state` returned, less what came after so many iterations."""
        self.since = {rule: step for rule, step in state["since"].items() if step < iterations}
        self._run = [Observed(*one) for one in state["run"][:iterations]]

    def _sentence(self, rule: str) -> str:
        now = self._run[-1]
        if rule == "alignment":
            together = f"{alignment_evidence(self._run):.1f} standard errors"
            return f"the policy gradient points away from reward ({together}, below 0 beyond noise)"
        begin = beginning(self._run)
        right = f"while {begin.right:.0%} right became {now.right:.0%}"
        if rule == "truncation":
            return f"{now.truncated:.0%} of responses are cut at the limit, {begin.truncated:.0%} were, {right}"
        verb = "fell" if rule == "length_falls" else "grew"
        return f"responses {verb} from {begin.length:.0f} to {now.length:.0f} tokens, {right}"


def observed(sampled: list[Rollout], score_z: float) -> Observed:
    """Return the measurements of one iteration."""
    lengths = [float(len(rollout.generation.tokens)) for rollout in sampled]
    return Observed(
        responses=len(sampled),
        length=statistics.fmean(lengths),
        length_spread=statistics.pstdev(lengths),
        truncated=statistics.fmean(rollout.generation.stop_reason == "length" for rollout in sampled),
        right=statistics.fmean(credit_of(rollout.verdict, rollout.credit) for rollout in sampled),
        score_z=score_z,
    )


def advice(rule: str, settings: RunSettings) -> str:
    """Advise on the settings of this run, as the end of a warning's line."""
    critic = []
    if settings.has_value_model and settings.pretrain.steps != "converge":
        critic.append("pretrain the value model (pretrain.steps = converge)")
    if settings.has_critic and settings.gae.lambda_actor < 1:
        critic.append(f"set gae.lambda_actor = 1 (it is {settings.gae.lambda_actor:g})")
    if rule in ("length_grows", "truncation"):
        critic.append("see in the samples what they go on about, and set reward.overlong_share against it")
    if not critic:
        critic.append(f"lower policy.learning_rate (it is {settings.policy.learning_rate:g})")
    stop = "" if settings.guard.on_warning == "stop" else ", and guard.on_warning = stop to end such runs"
    return f"{' or '.join(critic)}{stop}; docs/diagnose.md has the rule"
