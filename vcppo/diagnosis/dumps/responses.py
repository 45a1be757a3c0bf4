"""Cells of one response to a `LoggedResponse`: lengths compared, padding and foreign tokens cut away."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from vcppo.diagnosis.dumps import values
from vcppo.diagnosis.dumps.form import Cell, Cells, Notes, Role
from vcppo.diagnosis.dumps.masks import Stretch, last_stretch
from vcppo.diagnosis.responses import LoggedResponse
from vcppo.errors import DataError

_T = TypeVar("_T")


def response(place: str, line: int, cells: Cells, notes: Notes) -> LoggedResponse | None:
    """Build a response; None, with a note, if it has no token that the policy wrote.

    Raises:
        DataError: a cell is not what its role wants, or lengths differ.
    """
    written = values.mask(place, cells["response_mask"]) if "response_mask" in cells else None
    rewards = _numbers(place, cells, "rewards")
    if rewards is not None and written is not None and len(rewards) == len(written):  # null on padding is none
        rewards = tuple(0.0 if math.isnan(x) and not own else x for x, own in zip(rewards, written, strict=True))
    prompt, conversation = _prompt(place, cells)
    logged = LoggedResponse(
        problem="",
        score=_score(place, cells, rewards, notes),
        prompt=prompt,
        messages=conversation,
        prompt_tokens=_token_ids(place, cells, "prompt_tokens"),
        text=values.text(place, cells["response"]) if "response" in cells else None,
        tokens=_token_ids(place, cells, "tokens"),
        values=_numbers(place, cells, "values"),
        rewards=rewards,
        logprobs=_numbers(place, cells, "logprobs"),
        truncated=values.was_cut(cells["truncated"]) if "truncated" in cells else None,
        step=int(values.number(place, cells["step"])) if "step" in cells else None,
        line=line,
    )
    if not prompt and conversation is None and not logged.prompt_tokens:
        raise DataError(f"{place}: no prompt; expected text, messages or token ids")
    key = cells["problem"].value if "problem" in cells else (prompt or conversation or logged.prompt_tokens)
    logged = replace(logged, problem=_digest(key))
    _refuse_lengths(place, cells, logged, written)
    if written is not None and not all(written):
        stretch = last_stretch(written)
        if stretch is None:
            notes.count("responses left out, no token in them was written by the policy")
            return None
        logged = _cut_to(place, cells, logged, stretch, notes)
    if logged.logprobs is not None:
        values.refuse_not_finite(place, cells["logprobs"], logged.logprobs)
    if () in (logged.tokens, logged.values, logged.rewards, logged.logprobs):
        notes.count("responses left out, they have no token")
        return None
    return logged


# ---- cells ----


def _prompt(place: str, cells: Cells) -> tuple[str, tuple[Mapping[str, Any], ...] | None]:
    """Return text and None, or "" and messages."""
    if "prompt" not in cells:
        return "", None
    conversation = values.messages(cells["prompt"])
    return ("", conversation) if conversation is not None else (values.text(place, cells["prompt"]), None)


def _token_ids(place: str, cells: Cells, role: Role) -> tuple[int, ...] | None:
    return values.token_ids(place, cells[role]) if role in cells else None


def _numbers(place: str, cells: Cells, role: Role) -> tuple[float, ...] | None:
    return values.numbers(place, cells[role]) if role in cells else None


def _score(place: str, cells: Cells, rewards: Sequence[float] | None, notes: Notes) -> float:
    """The score, or the sum of all rewards, those that are cut away later included; rewards must be finite."""
    if rewards is not None:
        values.refuse_not_finite(place, cells["rewards"], rewards)
    if "score" in cells:
        return values.number(place, cells["score"])
    if rewards is None:
        raise DataError(f"{place}: no score; expected a number, or rewards of its tokens")
    notes.say("there is no score: the sum of a response's rewards is taken")
    return values.number(place, Cell(f"sum of {cells['rewards'].column}", sum(rewards)))


def _digest(key: Any) -> str:
    """A short name for a prompt, the same wherever it occurs."""
    text = key if isinstance(key, str) else json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(values.whole(text).encode()).hexdigest()[:12]


# ---- tokens ----


def _refuse_lengths(place: str, cells: Cells, logged: LoggedResponse, written: Sequence[bool] | None) -> None:
    """Refuse rows of different lengths.

    Raises:
        DataError: it names each with its length.
    """
    rows: dict[Role, Sequence[Any] | None] = {
        "tokens": logged.tokens,
        "values": logged.values,
        "rewards": logged.rewards,
        "logprobs": logged.logprobs,
        "response_mask": written,
    }
    lengths = {cells[role].column: len(row) for role, row in rows.items() if row is not None}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f'{length} in "{column}"' for column, length in lengths.items())
        raise DataError(
            f"{place}: numbers of tokens differ, {described}; expected one number for each token of the response"
        )


def _cut_to(place: str, cells: Cells, logged: LoggedResponse, stretch: Stretch, notes: Notes) -> LoggedResponse:
    """Keep the stretch, and make what stands before it a part of the prompt."""
    rewards = _cut(logged.rewards, stretch)
    if logged.rewards is not None and rewards is not None:  # what comes after the stretch is earned by its last token
        rewards = (*rewards[:-1], rewards[-1] + sum(logged.rewards[stretch.end :]))
    selected = replace(
        logged,
        tokens=_cut(logged.tokens, stretch),
        values=_cut(logged.values, stretch),
        rewards=rewards,
        logprobs=_cut(logged.logprobs, stretch),
    )
    if not stretch.start:
        return selected
    if logged.tokens is None or logged.prompt_tokens is None:
        raise DataError(
            f'{place}: "{cells["response_mask"].column}" has tokens that the policy did not write before others that '
            "it did; expected token ids of prompt and response beside it, to cut there"
        )
    notes.count(
        "responses with tokens inside that the policy did not write, of which the last stretch that it wrote is "
        "measured with all before as its context"
    )
    notes.tokens_outside += stretch.outside
    context = logged.prompt_tokens + logged.tokens[: stretch.start]
    return replace(selected, prompt="", messages=None, prompt_tokens=context, text=None)


def _cut(row: tuple[_T, ...] | None, stretch: Stretch) -> tuple[_T, ...] | None:
    return None if row is None else row[stretch.start : stretch.end]
