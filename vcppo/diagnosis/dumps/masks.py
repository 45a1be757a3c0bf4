"""Masks of what the policy did not write: padding, and the output of tools inside a response.

A value is judged by the return that follows it, and an advantage by the value of the next token; both are only right
where tokens that the policy chose stand side by side. So of a response with foreign tokens inside, the last stretch
that the policy wrote is the response here, and all before it is its context: the critic reads what it read in
training, returns and the end of the response are the real ones, and only the earlier stretches are not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """Begin and end of a response among logged tokens, from 0, the end excluded."""

    start: int
    end: int
    outside: int  # tokens that the policy wrote before the start


def last_stretch(written: Sequence[bool]) -> Stretch | None:
    """The last run of True; None if there is none.

    >>> last_stretch([False, True, True, False, True, False])
    Stretch(start=4, end=5, outside=2)
    """
    end = len(written)
    while end and not written[end - 1]:
        end -= 1
    if not end:
        return None
    start = end
    while start and written[start - 1]:
        start -= 1
    return Stretch(start, end, sum(written[:start]))
