"""Begin of each line of a response, among its tokens."""

from collections.abc import Sequence


def line_starts(pieces: Sequence[str]) -> list[int]:
    """Token indices at which lines that are not blank begin; 0 first.

    Args:
        pieces: tokens as the tokenizer names them.

    >>> line_starts(["One", "\\n", "\\n", "two", "\\nthree"])
    [0, 3, 4]
    """
    starts, has_text, fresh = [0], False, False
    for i, piece in enumerate(pieces):
        before, newline, after = _plain(piece).rpartition("\n")
        begins = (fresh and _plain(piece).strip()) or (newline and not before.strip() and after.strip())
        if i and has_text and begins:
            starts.append(i)
        has_text = has_text or bool(_plain(piece).strip())
        fresh = not after.strip() if newline else fresh and not after.strip()
    return starts


def _plain(piece: str) -> str:
    """A token's text as far as lines and blanks go: byte-level tokenizers and SentencePiece write those otherwise."""
    return piece.replace("Ċ", "\n").replace("<0x0A>", "\n").replace("Ġ", " ").replace("ĉ", "\t").replace("▁", " ")
