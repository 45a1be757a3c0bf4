"""Cells of one response to a `LoggedResponse`: lengths compared, padding and foreign tokens cut away."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from vcppo.diagnosis.dumps import values
from vcppo.diagnosis.dumps.form import Cell, Cells, Notes
from vcppo.diagnosis.dumps.masks import Stretch, last_stretch
from vcppo.diagnosis.responses import LoggedResponse
from vcppo.errors import DataError

_T = TypeVar("_T")


def response(place: str, line: int, cells: Cells, notes: Notes) -> LoggedResponse | None:
    """Build a response; None, with a note, if it has no token that the policy wrote.

    Raises:
        DataError: a cell is not what its role wants, or lengths differ.
    """
    prompt, conversation = _prompt(place, cells)
    prompt_tokens = values.token_ids(place, cells["prompt_tokens"]) if "prompt_tokens" in cells else None
    text = values.text(place, cells["response"]) if "response" in cells else None
    tokens = values.token_ids(place, cells["tokens"]) if "tokens" in cells else None
    per_token: dict[str, tuple[float, ...] | None] = {
        "values": values.numbers(place, cells["values"]) if "values" in cells else None,
        "rewards": values.numbers(place, cells["rewards"]) if "rewards" in cells else None,
        "logprobs": values.numbers(place, cells["logprobs"]) if "logprobs" in cells else None,
    }
    key = cells["problem"].value if "problem" in cells else (prompt or conversation or prompt_tokens or "")
    if not prompt and conversation is None and prompt_tokens is None:
        raise DataError(f"{place}: no prompt; expected text, messages or token ids")
    written = values.mask(place, cells["response_mask"]) if "response_mask" in cells else None
    _same_lengths(place, cells, {"tokens": tokens, "response_mask": written, **per_token})
    if written is not None and not all(written):
        stretch = last_stretch(written)
        if stretch is None:
            notes.count("responses left out, no token in them was written by the policy")
            return None
        if stretch.start:
            if tokens is None or prompt_tokens is None:
                raise DataError(
                    f"{place}: {_name(cells, 'response_mask')} has tokens that the policy did not write before others "
                    "that it did; expected token ids of prompt and response beside it, to cut there"
                )
            _note_stretch(stretch, notes)
            text, prompt, conversation = None, "", None
            prompt_tokens += tokens[: stretch.start]
        tokens = _cut(tokens, stretch)
        rewards = per_token["rewards"]
        per_token = {name: _cut(row, stretch) for name, row in per_token.items()}
        if rewards is not None and stretch.end < len(rewards):
            per_token["rewards"] = _with_later(rewards, stretch)
    for cell, row in ((cells.get("rewards"), per_token["rewards"]), (cells.get("logprobs"), per_token["logprobs"])):
        if cell is not None and row is not None:
            values.refuse_not_finite(place, cell, row)
    lengths = [len(row) for row in (tokens, *per_token.values()) if row is not None]
    if lengths and not lengths[0]:
        notes.count("responses left out, they have no token")
        return None
    return LoggedResponse(
        problem=_digest(key),
        score=_score(place, cells, per_token["rewards"], notes),
        prompt=prompt,
        messages=conversation,
        prompt_tokens=prompt_tokens,
        text=text,
        tokens=tokens,
        values=per_token["values"],
        rewards=per_token["rewards"],
        logprobs=per_token["logprobs"],
        truncated=values.was_cut(cells["truncated"]) if "truncated" in cells else None,
        step=int(values.number(place, cells["step"])) if "step" in cells else None,
        line=line,
    )


def _prompt(place: str, cells: Cells) -> tuple[str, tuple[Mapping[str, Any], ...] | None]:
    """Return text and None, or "" and messages."""
    if "prompt" not in cells:
        return "", None
    conversation = values.messages(cells["prompt"])
    return ("", conversation) if conversation is not None else (values.text(place, cells["prompt"]), None)


def _score(place: str, cells: Cells, rewards: Sequence[float] | None, notes: Notes) -> float:
    if "score" in cells:
        return values.number(place, cells["score"])
    if rewards is None:
        raise DataError(f"{place}: no score; expected a number, or rewards of its tokens")
    notes.say("there is no score: the sum of a response's rewards is taken")
    return sum(rewards)


def _same_lengths(place: str, cells: Cells, rows: Mapping[str, Sequence[Any] | None]) -> None:
    lengths = {_name(cells, role): len(row) for role, row in rows.items() if row is not None}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise DataError(
            f"{place}: numbers of tokens differ, {told}; expected one number for each token of the response"
        )


def _name(cells: Cells, role: str) -> str:
    cell: Cell | None = cells.get(role)  # type: ignore[call-overload]
    return f'"{cell.column}"' if cell is not None else role


def _cut(row: tuple[_T, ...] | None, stretch: Stretch) -> tuple[_T, ...] | None:
    return None if row is None else row[stretch.start : stretch.end]


def _with_later(rewards: Sequence[float], stretch: Stretch) -> tuple[float, ...]:
    """Rewards of a stretch; what stands after its end, on padding or a tool's output, is earned by its last token."""
    kept = list(rewards[stretch.start : stretch.end])
    kept[-1] += sum(rewards[stretch.end :])
    return tuple(kept)


def _note_stretch(stretch: Stretch, notes: Notes) -> None:
    notes.count(
        "responses with tokens inside that the policy did not write, of which the last stretch that it wrote is "
        "measured with all before as its context"
    )
    notes.tokens_outside += stretch.outside


def _digest(key: Any) -> str:
    """A short name for a prompt, the same wherever it occurs."""
    text = key if isinstance(key, str) else json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(values.whole(text).encode()).hexdigest()[:12]
