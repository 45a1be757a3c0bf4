"""What a DecisionPath says of a response, read token by token: to be compared with the verifier's verdict."""

from collections.abc import Sequence

from vcppo.types import DecisionPath


def chance_of_correct(path: DecisionPath, pieces: Sequence[str]) -> float:
    """The chance that a response is judged correct, by what its path lists alone; `written` is not read."""
    errors = 0
    for place, piece in enumerate(pieces):
        taken = path.exits.get(place, {}).get(piece)
        if isinstance(taken, DecisionPath):
            return chance_of_correct(taken, pieces[place + 1 :])
        if taken is not None:
            return taken
        if place == len(path.tokens):
            return path.correct_if_failed  # it went on after its end
        on = path.errors.get(place, {path.tokens[place]: 0})
        if piece not in on:
            return path.correct_if_failed
        errors += on[piece]
    right = len(pieces) == len(path.tokens) and errors <= path.errors_allowed
    return path.correct_if_right if right else path.correct_if_failed


def leaves_at(path: DecisionPath, pieces: Sequence[str]) -> int:
    """Number of its tokens that a response wrote on its way."""
    for place, (piece, token) in enumerate(zip(pieces, path.tokens, strict=False)):
        if piece not in path.errors.get(place, {token: 0}):
            return place
    return min(len(pieces), len(path.tokens))
