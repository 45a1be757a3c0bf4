"""Places where tokens of two tokenizers begin at the same character: only there are both in the same state."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from vcppo.diagnosis.tokens import decode

BROKEN = "\ufffd"  # what the bytes of part of a character decode to
MOST_TOKENS = 16  # that may wait for the end of a character; more are bytes that are none, each decoded by itself


def boundaries(ids: Sequence[int], tokenizer: PreTrainedTokenizerFast, text: str) -> list[int | None]:
    """Characters of `text` before each token; None where it begins within a character, or ids and text disagree.

    Tokens are decoded two or three at a time, since some tokenizers write the first one of a text differently. Special
    tokens have no characters.
    """
    result: list[int | None] = []
    start, end, characters, agrees = 0, 0, 0, True
    for place in range(len(ids)):
        result.append(characters if agrees and place == end else None)
        before, after = decode(ids[start:end], tokenizer), decode(ids[start : place + 1], tokenizer)
        if not after.endswith(BROKEN) or place - end >= MOST_TOKENS:
            new = after[len(before) :]
            agrees = agrees and text.startswith(new, characters)
            characters += len(new)
            start, end = (end, place + 1) if new else (start, place + 1)
    return result


def shared(one: Sequence[int | None], other: Sequence[int | None]) -> tuple[list[int], list[int]]:
    """Places in `one` whose boundary `other` has too, and for each the first such place in `other`.

    >>> shared([0, 2, None, 5], [0, 3, 5, 5])
    ([0, 3], [0, 2])
    """
    first: dict[int, int] = {}
    for place, characters in enumerate(other):
        if characters is not None:
            first.setdefault(characters, place)
    both = [(place, first[c]) for place, c in enumerate(one) if c is not None and c in first]
    return [place for place, _ in both], [place for _, place in both]
