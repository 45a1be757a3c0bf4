"""Several processes write one batch: each has its generator write a share, and hears what the others wrote."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from vcppo.engines.base import BranchPoint, Engine, Sampling
from vcppo.models.distributed import World
from vcppo.types import Generation

Packed = tuple[np.ndarray, np.ndarray, str]  # token ids, log-probabilities, stop reason


class SharedEngine:
    """An engine whose answers are those of `engine` alone, whatever the number of processes."""

    def __init__(self, engine: Engine, world: World) -> None:
        self.engine, self.world = engine, world

    def update_weights(self, policy: PreTrainedModel) -> None:
        """See Engine."""
        self.engine.update_weights(policy)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """See Engine."""
        own = self.world.share(len(prompts))
        return self._all(
            self.engine.generate(prompts[own.start : own.stop], sampling, seed=seed, first=first + own.start)
        )

    def branch(
        self,
        stems: Sequence[Sequence[int]],
        points: Sequence[BranchPoint],
        sampling: Sampling,
        *,
        seed: int,
        first: int = 0,
    ) -> list[Generation]:
        """See Engine."""
        own = self.world.share(len(points))
        return self._all(
            self.engine.branch(stems, points[own.start : own.stop], sampling, seed=seed, first=first + own.start)
        )

    def _all(self, own: list[Generation]) -> list[Generation]:
        packed: list[Packed] = [
            (np.array(answer.tokens, np.int32), np.array(answer.logprobs, np.float64), answer.stop_reason)
            for answer in own
        ]
        return [
            Generation(tuple(tokens.tolist()), tuple(logprobs.tolist()), "stop" if reason == "stop" else "length")
            for tokens, logprobs, reason in self.world.gather(packed)
        ]
