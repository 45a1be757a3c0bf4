"""Several processes generate one batch: each has its engine generate a share, and gathers those of the others."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from vcppo.engines.base import BranchPoint, Engine, Sampling
from vcppo.models.distributed import World
from vcppo.types import Generation

Packed = tuple[np.ndarray, np.ndarray, str]  # token ids, log-probabilities, stop reason


class SharedEngine:
    """An engine whose responses are those of `engine` alone, whatever the number of processes."""

    def __init__(self, engine: Engine, world: World) -> None:
        self.engine, self.world = engine, world

    def update_weights(self, policy: PreTrainedModel) -> None:
        """See Engine."""
        self.engine.update_weights(policy)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """See Engine."""
        share = self.world.share(len(prompts))
        return self._gather(
            self.engine.generate(prompts[share.start : share.stop], sampling, seed=seed, first=first + share.start)
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
        share = self.world.share(len(points))
        return self._gather(
            self.engine.branch(stems, points[share.start : share.stop], sampling, seed=seed, first=first + share.start)
        )

    def _gather(self, local: list[Generation]) -> list[Generation]:
        packed: list[Packed] = [
            (np.array(generation.tokens, np.int32), np.array(generation.logprobs, np.float64), generation.stop_reason)
            for generation in local
        ]
        return [
            Generation(tuple(tokens.tolist()), tuple(logprobs.tolist()), "stop" if reason == "stop" else "length")
            for tokens, logprobs, reason in self.world.gather(packed)
        ]
