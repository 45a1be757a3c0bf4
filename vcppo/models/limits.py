"""Length limit of a response: the settings' or the task's, within the positions that the prompt leaves in the model."""

from __future__ import annotations

from dataclasses import dataclass

from vcppo.errors import ConfigError


@dataclass(frozen=True)
class Room:
    """Tokens that prompt and response may have together; None: any number."""

    positions: int | None
    source: str  # whose limit this is, for messages

    @classmethod
    def of_model(cls, name: str, positions: int | None) -> Room:
        """The positions of a model."""
        return cls(positions, f"{name} has {positions} positions")

    @classmethod
    def of_engine(cls, max_length: int | None) -> Room:
        """The length that vLLM reserves cache for."""
        return cls(max_length, f"engine.max_length is {max_length}")

    def smaller(self, other: Room) -> Room:
        """Return the smaller of the two."""
        if other.positions is None or (self.positions is not None and self.positions <= other.positions):
            return self
        return other


@dataclass(frozen=True)
class Limit:
    """Tokens of a response at most, and a note for people where the task's number gave way."""

    tokens: int
    note: str | None = None


def limit_of(max_tokens: int | None, default: int, *, room: Room, longest_prompt: int, of: str) -> Limit:
    """The limit that was set, or else the task's, which gives way where the model has fewer positions.

    Args:
        max_tokens: `rollout.max_tokens`. default: the task's limit.
        longest_prompt: in tokens. of: which prompts these are.
    Raises:
        ConfigError: the limit that was set, or the longest prompt alone, does not fit.
    """
    if room.positions is None:
        return Limit(max_tokens or default)
    left = room.positions - longest_prompt
    here = f"{room.source}, the longest of the {of} prompts has {longest_prompt} tokens"
    if left < 1:
        raise ConfigError(f"{here}: there is no room for a response; expected shorter problems, or a longer model")
    if max_tokens is not None and max_tokens > left:
        raise ConfigError(f"rollout.max_tokens = {max_tokens}: {here}; expected at most {left}")
    if max_tokens is None and default > left:
        return Limit(left, f"{here}: responses to them end at {left} tokens, instead of the task's {default}")
    return Limit(max_tokens or default)
