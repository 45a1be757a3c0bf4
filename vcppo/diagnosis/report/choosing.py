"""Choose the responses of a dump that the viewer offers, and what it says of each token."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vcppo.diagnosis.boundaries import BROKEN, MOST_TOKENS
from vcppo.diagnosis.report.viewer import ViewedResponse, ViewerData
from vcppo.diagnosis.responses import Dump, LoggedResponse, Reading
from vcppo.seeding import seed_for

RESPONSES, TOKENS = 200, 400_000  # of the viewer; so many stay under 5 MB


def viewer_data(
    dump: Dump,
    readings: Sequence[Reading],
    ids: Mapping[int, Sequence[int]],
    texts: Callable[[Sequence[int]], Sequence[str]],
    *,
    lambdas: Sequence[float],
    seed: int,
    responses: int = RESPONSES,
    tokens: int = TOKENS,
) -> ViewerData:
    """Choose responses for the viewer: half are those whose values are furthest from returns, half are drawn.

    The first critic decides what is far. Iterations, where the dump has several, share the places evenly, and prompts
    that have responses in more of them are drawn first, one response each: so the same prompt can be followed. A token
    that a critic has no value before has NaN there.

    Args:
        ids: the tokens of a response, by its place in the dump; a response that is missing is not offered.
        texts: what each token of a response is shown as; asked for those that are chosen alone.
        responses, tokens: no more than these are chosen; a response that would exceed the tokens is passed over.
    """
    values = [_values_by_row(reading, ids) for reading in readings]
    rows = sorted(row for row in ids if len(ids[row]))
    steps = sorted({dump.responses[row].step for row in rows}, key=lambda step: (step is not None, step))
    rng, followed = np.random.default_rng(seed), _Followed(dump, rows, seed)
    chosen: list[int] = []
    odd = drawn = 0
    for place, step in enumerate(steps):
        here = [row for row in rows if dump.responses[row].step == step]
        wanted = responses * (place + 1) // len(steps) - responses * place // len(steps)
        errors = {row: _error(dump.responses[row], values[0].get(row), len(ids[row])) for row in here} if values else {}
        by_error = sorted((row for row in here if errors.get(row, -1.0) >= 0), key=lambda row: -errors[row])
        furthest, all_else = by_error[: wanted // 2], followed(rng.permutation(here).tolist())
        order = [*furthest, *(row for row in all_else if row not in set(furthest))]
        fitting = _within(order[:wanted], ids, tokens // len(steps))
        odd += len(set(fitting) & set(furthest))
        drawn += len(set(fitting) - set(furthest))
        chosen += sorted(fitting)
    return ViewerData(
        critics=tuple(reading.critic for reading in readings),
        responses=tuple(
            _viewed(dump.responses[row], texts(ids[row]), [result.get(row) for result in values]) for row in chosen
        ),
        lambdas=tuple(lambdas),
        note=_note(len(dump.responses), odd, drawn),
    )


class _Followed:
    """Prompts with responses in several iterations come first, those of most before others, alike in each."""

    def __init__(self, dump: Dump, rows: Sequence[int], seed: int) -> None:
        self._problem = {row: dump.responses[row].problem for row in rows}
        steps: dict[str, set[int | None]] = {}
        for row, problem in self._problem.items():
            steps.setdefault(problem, set()).add(dump.responses[row].step)
        several = {problem: len(of) for problem, of in steps.items() if len(of) > 1}
        self._rank = {problem: (-n, seed_for(seed, "followed", problem)) for problem, n in several.items()}

    def __call__(self, rows: Sequence[int]) -> list[int]:
        """One response to each of these prompts first, then all others in their order."""
        first: dict[str, int] = {}
        for row in rows:
            if self._problem[row] in self._rank:
                first.setdefault(self._problem[row], row)
        ahead = [first[problem] for problem in sorted(first, key=lambda problem: self._rank[problem])]
        taken = set(ahead)
        return [*ahead, *(row for row in rows if row not in taken)]


def numbered(ids: Sequence[int]) -> tuple[str, ...]:
    """Tokens that nobody can decode, as <7>."""
    return tuple(f"<{token}>" for token in ids)


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """The text of each token, special ones by their names; a character that several tokens make is the last one's.

    Tokens are decoded two or three at a time, since some tokenizers write the first one of a text differently. An id
    that the tokenizer does not know is written as <7>.
    """
    result: list[str] = []
    start, end = 0, 0
    for place, token in enumerate(ids):
        if not 0 <= token < len(tokenizer):
            result.append(f"<{token}>")
            start = end = place + 1
            continue
        before, after = _decoded(ids[start:end], tokenizer), _decoded(ids[start : place + 1], tokenizer)
        last = place + 1 == len(ids)
        if after.endswith(BROKEN) and not last and place - end < MOST_TOKENS:
            result.append("")
            continue
        result.append(after[len(before) :])
        start, end = end, place + 1
    return tuple(result)


def _decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _values_by_row(reading: Reading, ids: Mapping[int, Sequence[int]]) -> dict[int, NDArray[np.float32]]:
    """[T] values of the responses that have as many tokens; NaN where the critic has none."""
    result = {}
    for i, length in enumerate(reading.response_mask.sum(dim=1).tolist()):
        row = i if reading.rows is None else int(reading.rows[i])
        here = reading.values[i, :length].float().numpy()
        total = len(ids.get(row, ()))
        if reading.columns is None:
            if length == total:
                result[row] = here
        else:
            columns = reading.columns[i, :length].numpy()
            if length and columns.max() < total:
                result[row] = np.full(total, np.nan, dtype=np.float32)
                result[row][columns] = here
    return result


def _returns(response: LoggedResponse, length: int) -> NDArray[np.float64]:
    """[T] the rewards to come, gamma 1; the score where rewards are not known for these tokens."""
    rewards = response.rewards
    if rewards is not None and len(rewards) == length:
        return np.cumsum(np.asarray(rewards, dtype=np.float64)[::-1])[::-1]
    return np.full(length, response.score if rewards is None else sum(rewards))


def _error(response: LoggedResponse, values: NDArray[np.float32] | None, length: int) -> float:
    """Mean |V - return| over the tokens that have a value; -1 where none has."""
    if values is None:
        return -1.0
    errors = np.abs(values - _returns(response, length))
    errors = errors[np.isfinite(errors)]
    return float(errors.mean()) if errors.size else -1.0


def _within(rows: Sequence[int], ids: Mapping[int, Sequence[int]], tokens: int) -> list[int]:
    selected = []
    for row in rows:
        if len(ids[row]) <= tokens:
            selected.append(row)
            tokens -= len(ids[row])
    return selected


def _viewed(
    response: LoggedResponse, texts: Sequence[str], values: Sequence[NDArray[np.float32] | None]
) -> ViewedResponse:
    length = len(texts)
    unknown = np.full(length, np.nan)
    logprobs = response.logprobs if response.logprobs is not None and len(response.logprobs) == length else None
    return ViewedResponse(
        problem=response.problem,
        prompt=_prompt(response),
        tokens=tuple(texts),
        score=response.score,
        values=tuple(unknown if column is None else column for column in values),
        returns=_returns(response, length),
        logprobs=logprobs,
        truncated=response.truncated,
        step=response.step,
        line=response.line,
    )


def _prompt(response: LoggedResponse) -> str:
    if response.prompt or response.messages is None:
        return response.prompt or response.problem
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in response.messages)


def _note(total: int, odd: int, drawn: int) -> str:
    if odd + drawn == total:
        return f"All {total:,} responses."
    if not odd:
        return f"{drawn:,} of {total:,} responses, drawn at random."
    return (
        f"{odd + drawn:,} of {total:,} responses: {odd:,} whose values are furthest from returns, and {drawn:,} drawn "
        "at random."
    )
