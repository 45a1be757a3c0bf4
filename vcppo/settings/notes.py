"""Notes on decisions that nobody wrote down, printed before a run starts; alike ones of several runs in one line."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One decision; notes that differ in `what` alone are one line."""

    before: str
    what: str
    after: str = ""


def lines(notes: Iterable[Note]) -> list[str]:
    """A line for each kind of note, in the order in which they first came.

    >>> lines([Note("rate = 1 gives way to 2 of ", "ppo", "."), Note("rate = 1 gives way to 2 of ", "apa", ".")])
    ['rate = 1 gives way to 2 of ppo, apa.']
    """
    members: dict[tuple[str, str], dict[str, None]] = {}
    for note in notes:
        members.setdefault((note.before, note.after), {})[note.what] = None
    return [f"{before}{', '.join(whats)}{after}" for (before, after), whats in members.items()]
