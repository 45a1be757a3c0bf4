"""Split of an embedded task's problems: those trained on, and those kept for a report or for a search."""

from collections.abc import Sequence
from typing import TypeVar

from vcppo.errors import ConfigError
from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.evaluation import Problems

T = TypeVar("T")


def divided(
    problems: Sequence[T], settings: EmbeddedTaskSettings, *, dials: str
) -> tuple[list[T], dict[Problems, list[T]]]:
    """(for training, held out by use); those of a report come first, so that a search takes from training alone.

    Args:
        problems: all that can be asked, in an order that depends on each one's name alone.
        dials: settings that would make more of them, for the message.
    Raises:
        ConfigError: none would be left to train on.
    """
    reported, searched = settings.held_out, settings.held_out + settings.held_out_for_search
    if len(problems) <= searched:
        named = f" and task.held_out_for_search = {settings.held_out_for_search}" if searched > reported else ""
        raise ConfigError(
            f"task.held_out = {reported}{named}: this task has {len(problems)} problems in all; hold out fewer, or "
            f"raise {dials}"
        )
    held_out: dict[Problems, list[T]] = {"report": [*problems[:reported]], "search": [*problems[reported:searched]]}
    return [*problems[searched:]], held_out
