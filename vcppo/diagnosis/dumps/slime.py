"""slime: samples of `--save-debug-rollout-data` and `--save-debug-train-data`, exported as JSON.

slime writes both by torch.save, as files that may run code when they are read; they are refused, and read once their
samples are JSON (docs/dumps.md). Source: `save_debug_rollout_data` of slime/observability/rollout_data_utils.py,
`Sample.to_dict` of slime/utils/types.py and `_build_dump_payload` of slime/observability/train_data_utils.py at 624b824
(August 2026, after 0.3.1). Rollouts: prompt (text or messages), tokens (prompt and response), response,
response_length, reward (a number, or an object for `--reward-key`), loss_mask and rollout_log_probs (a number for each
token of the response), status, remove_sample. Training: tokens, response_lengths, loss_masks, rewards (normalised if
the trainer does), raw_reward, log_probs, rollout_log_probs, values, truncated.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, cells_of, items
from vcppo.errors import DataError
from vcppo.tasks.rows import Row, short

_NAMES: Mapping[Role, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "response": ("response",),
    "score": ("raw_reward", "reward", "rewards"),
    "response_mask": ("loss_mask", "loss_masks"),
    "logprobs": ("rollout_log_probs", "log_probs"),
    "values": ("values",),
    "truncated": ("truncated", "status"),
}
_STEP = re.compile(r"(\d+)\.jsonl?(?:\.gz)? ")


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    if row.values.get("remove_sample"):
        notes.count("responses left out, slime kept them out of the loss (remove_sample)")
        return
    if row.values.get("status") in ("aborted", "pending", "failed"):
        notes.count("responses left out, their generation was aborted or failed")
        return
    columns = {role: name for role, names in _NAMES.items() for name in reversed(names) if _is_there(row, name)}
    cells = cells_of(row, columns)
    if columns.get("score") == "rewards" and "score" not in named:
        notes.say("scores are slime's rewards of training, which it may have normalised within groups")
    cells |= _sequence(row)
    if "score" in cells and "score" not in named and isinstance(reward := cells["score"].value, dict):
        cells["score"] = _only_number(row, cells["score"].column, reward)
    if (step := _STEP.search(row.place)) is not None:
        cells["step"] = Cell("the file's name", int(step[1]))
    yield cells


def _is_there(row: Row, name: str) -> bool:
    return row.values.get(name) is not None


def _sequence(row: Row) -> Cells:
    """Token ids of prompt and response, from those of both and the length of the response."""
    name = "response_length" if "response_length" in row.values else "response_lengths"
    length, tokens = row.values[name], items(row, Cell("tokens", row.values["tokens"]))
    if not isinstance(length, int) or not 0 <= length <= len(tokens):
        raise DataError(f"{row.place}: {name} is {short(length)}; expected 0 to {len(tokens)}, as many as tokens has")
    start = len(tokens) - length
    return {"prompt_tokens": Cell("tokens", tokens[:start]), "tokens": Cell("tokens", tokens[start:])}


def _only_number(row: Row, column: str, reward: Mapping[str, Any]) -> Cell:
    numbers = [name for name, value in reward.items() if isinstance(value, bool | int | float)]
    if len(numbers) != 1:
        raise DataError(
            f'{row.place}: "{column}" is an object with the numbers {", ".join(numbers) or "none"}; expected one: name '
            f"it as score={column}.NAME"
        )
    return Cell(f"{column}.{numbers[0]}", reward[numbers[0]])


def _fits(columns: frozenset[str]) -> bool:
    return "tokens" in columns and bool(columns & {"response_length", "response_lengths"})


FORM = Form(
    description="slime, samples of --save-debug-rollout-data or --save-debug-train-data exported as JSON: tokens, "
    "response_length, reward, loss_mask",
    fits=_fits,
    cells=_cells,
)
