"""How long a response may be: what settings or task say, within the positions that the model has beside the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from vcppo.errors import ConfigError


@dataclass(frozen=True)
class Room:
    """Tokens that prompt and response may have together; None: any number."""

    positions: int | None
    words: str  # who says so, for messages

    @classmethod
    def of_model(cls, name: str, positions: int | None) -> Room:
        """What a model has."""
        return cls(positions, f"{name} has {positions} positions")

    @classmethod
    def of_engine(cls, max_length: int | None) -> Room:
        """What vLLM is told to make room for."""
        return cls(max_length, f"engine.max_length is {max_length}")

    def smaller(self, other: Room) -> Room:
        """The one that holds less."""
        if other.positions is None or (self.positions is not None and self.positions <= other.positions):
            return self
        return other


@dataclass(frozen=True)
class Limit:
    """Tokens of a response at most, and what is to be said of how it came about."""

    tokens: int
    note: str | None = None


def limit_of(said: int | None, default: int, *, room: Room, longest_prompt: int, of: str) -> Limit:
    """The limit that was set, or else the task's, which gives way where the model has fewer positions.

    Args:
        said: `rollout.max_tokens`. default: what the task says.
        longest_prompt: in tokens. of: which prompts these are.
    Raises:
        ConfigError: the limit that was set, or the longest prompt alone, does not fit.
    """
    if room.positions is None:
        return Limit(said or default)
    left = room.positions - longest_prompt
    here = f"{room.words}, the longest of the {of} prompts has {longest_prompt} tokens"
    if left < 1:
        raise ConfigError(f"{here}: there is no room for a response; expected shorter problems, or a longer model")
    if said is not None and said > left:
        raise ConfigError(f"rollout.max_tokens = {said}: {here}; expected at most {left}")
    if said is None and default > left:
        return Limit(left, f"{here}: responses to them end at {left} tokens, instead of the task's {default}")
    return Limit(said or default)
