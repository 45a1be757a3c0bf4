"""The reference policy: the first one, an average of late ones, or a copy taken now and then."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from vcppo.models.sharding import copy_weights, load_weights, mix_weights
from vcppo.settings.policy import ReferenceSettings


class Reference:
    """A policy without gradient. `follow` after every iteration moves it as the settings say, or not at all."""

    def __init__(self, first_policy: PreTrainedModel, settings: ReferenceSettings) -> None:
        self.policy, self.settings = first_policy, settings

    @property
    def moves(self) -> bool:
        """True if it ever differs from the first policy."""
        return self.settings.ema > 0 or self.settings.refresh_every != "never"

    def follow(self, policy: PreTrainedModel, iterations: int) -> None:
        """After `iterations`: theta_ref <- ema theta + (1 - ema) theta_ref (arXiv:2404.10719), or a copy."""
        if self.settings.ema > 0:
            mix_weights(self.policy, policy, self.settings.ema)
        every = self.settings.refresh_every
        if every != "never" and iterations % every == 0:
            copy_weights(self.policy, policy)

    def state_dict(self) -> dict[str, Any] | None:
        """Return what resuming needs: None if it never moves."""
        return self.policy.state_dict() if self.moves else None

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore from what `state_dict` returned."""
        if state is not None:
            load_weights(self.policy, dict(state))
