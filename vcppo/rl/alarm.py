"""A warning of updates that move the policy too far at once: such updates destroy what it has learnt."""

import sys

from vcppo.models.distributed import world
from vcppo.rl.metrics import update_kl
from vcppo.rl.policy_update import PolicyUpdate
from vcppo.settings.run import RunSettings


class KlAlarm:
    """Warns the first time that an iteration's updates exceed `guard.kl_alarm`, and whenever they are twice as far."""

    def __init__(self) -> None:
        self._warned_of = 0.0

    def watch(self, updates: list[PolicyUpdate], settings: RunSettings, *, step: int) -> dict[str, float]:
        """Return the metrics to log: none for fewer than two updates, between which there is nothing to measure."""
        if len(updates) < 2:
            return {}
        moved, limit = update_kl(updates), settings.guard.kl_alarm
        if moved > max(limit, 2 * self._warned_of):
            self._warned_of = moved
            if world().is_main:
                print(
                    f"iteration {step}: its updates moved the policy by {moved:.3g} nats a token, guard.kl_alarm "
                    f"is {limit:g}: such steps destroy what it knows; lower policy.learning_rate "
                    f"({settings.policy.learning_rate:g}) or policy.epochs, or raise policy.warmup_steps",
                    file=sys.stderr,
                )
        return {"policy/kl_alarm": float(moved > limit)}
