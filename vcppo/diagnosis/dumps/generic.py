"""Any other file: columns are found by their usual names, whatever their case."""

from collections.abc import Iterable, Mapping
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, alone, listed
from vcppo.diagnosis.dumps.values import messages
from vcppo.errors import DataError
from vcppo.tasks.rows import Row

ANSWER = "answer"  # the response, where nothing else is; mostly the problem's
USUAL: Mapping[Role, tuple[str, ...]] = {
    "prompt": ("prompt", "messages", "question", "problem", "query", "input", "instruction", "conversation"),
    "prompt_tokens": ("prompt_tokens", "prompt_token_ids", "prompt_ids", "input_tokens", "input_ids"),
    "response": ("response", "completion", "output", "generation", "model_response", "text", ANSWER),
    "tokens": (
        "tokens", "response_tokens", "response_token_ids", "response_ids", "token_ids", "completion_ids",
        "output_token_ids", "output_tokens", "output_ids",
    ),
    "score": ("score", "reward", "rewards", "acc", "accuracy", "is_correct", "correct", "verdict"),
    "values": ("values", "token_values"),
    "rewards": ("rewards", "token_rewards", "token_level_rewards", "token_level_scores"),
    "response_mask": ("response_mask", "completion_mask", "action_mask", "loss_mask"),
    "logprobs": ("logprobs", "log_probs", "old_logprobs", "old_log_probs", "rollout_log_probs", "generation_logprobs"),
    "truncated": ("truncated", "is_truncated", "finish_reason", "stop_reason"),
    "step": ("step", "global_step", "global_steps", "iteration"),
}  # fmt: skip
_LISTS = ("prompt_tokens", "tokens", "values", "rewards", "response_mask", "logprobs")


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    by_lower = {str(name).lower(): str(name) for name in row.values}
    cells: Cells = {}
    for role, usual in USUAL.items():
        there = [
            by_lower[name]
            for name in usual
            if name in by_lower and name != ANSWER and _may_be(role, row.values[by_lower[name]])
        ]
        if there:
            cells[role] = Cell(there[0], row.values[there[0]])
        if role == "score" and len(there) > 1 and "score" not in named:
            notes.say(f"score = {there[0]}, the first of {', '.join(there)}; score=COLUMN takes another")
    if "prompt" in cells and "response" not in cells and "tokens" not in cells:
        cells |= _of_conversation(cells["prompt"])
    if not {"response", "tokens"} & cells.keys() and _may_be("response", row.values.get(by_lower.get(ANSWER, ""))):
        cells["response"] = Cell(by_lower[ANSWER], row.values[by_lower[ANSWER]])
        if "response" not in named:
            notes.say(
                f"response = {by_lower[ANSWER]}; response=COLUMN takes another, where that is the problem's answer"
            )
    yield cells


def _may_be(role: Role, value: Any) -> bool:
    """True where a cell is of the kind that its role wants: a list for what is one a token, else none."""
    if value is None:
        return False
    if role in _LISTS:
        return isinstance(value, list) or (isinstance(value, str) and value.startswith("["))
    return role in ("prompt", "response") or not isinstance(value, list) or not isinstance(alone(value), list)


def _of_conversation(prompt: Cell) -> Cells:
    """Prompt and response of a conversation that ends with the assistant's turn."""
    turns = messages(prompt)
    if turns is None or len(turns) < 2 or turns[-1]["role"] != "assistant":
        return {}
    return {"prompt": Cell(prompt.column, list(turns[:-1])), "response": Cell(prompt.column, turns[-1]["content"])}


def require(row: Row, cells: Cells) -> None:
    """Refuse cells of which no response can be made.

    Raises:
        DataError: prompt, response or score is missing; it names the columns that came, and those wanted.
    """
    for role, also in (("prompt", "prompt_tokens"), ("response", "tokens"), ("score", "rewards")):
        if role not in cells and also not in cells:
            usual = (*USUAL[role], *(USUAL[also] if also != "rewards" else ()))  # type: ignore[index]
            raise DataError(
                f"{row.place}: no column of it looks like the {role}, it has {listed(row.values)}; expected one of "
                f"{', '.join(usual)}, or name it: {role}=COLUMN"
            )


FORM = Form(
    description="any other: prompt, response or tokens, and score, found by their usual names or named by you",
    fits=lambda columns: True,
    cells=_cells,
)
