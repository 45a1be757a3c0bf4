"""NeMo-RL: train_data_stepN.jsonl and val_data_stepN.jsonl in the log folder of an experiment.

Source: `log_batched_dict_as_jsonl` of nemo_rl/utils/logger.py, called in nemo_rl/algorithms/grpo.py, grpo_sync.py,
ppo.py and distillation.py, at 7ea279a (August 2026, after 0.7.0). A row is a batch of one, so that every cell but `idx`
is a list of one. Training: content (the texts of the conversation's messages, chat markers in them), rewards,
input_lengths, token_ids (prompt, response, padding on the right), token_loss_mask (1 on what the policy wrote),
sample_loss_mask, advantages, generation_logprobs and prev_logprobs, each aligned with token_ids; with dynamic sampling
`filtered_rewards` is what was trained on. Version 0.3 (same functions) has no token ids and no masks, so that
only two messages can be told apart. Validation: content (messages with role and content) and rewards. Nothing is
written where `env.should_log_nemo_gym_responses` is set, and PPO logs no values.
"""

import re
from collections.abc import Iterable
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, alone, has, items
from vcppo.errors import DataError
from vcppo.tasks.rows import Row, short

_STEP = re.compile(r"_data_step(\d+)\.jsonl")


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    values = {name: alone(value) for name, value in row.values.items()}
    if "sample_loss_mask" in values and not values["sample_loss_mask"]:
        notes.count("responses left out, NeMo-RL kept them out of the loss (sample_loss_mask 0)")
        return
    cells: Cells = {"score": Cell("rewards", values.get("filtered_rewards", values["rewards"]))}
    if (step := _STEP.search(row.place)) is not None:
        cells["step"] = Cell("the file's name", int(step[1]))
    content = values["content"] if isinstance(values["content"], list) else [values["content"]]
    if "token_ids" in values:
        yield cells | _of_tokens(row, values, content)
        return
    if content and all(isinstance(turn, dict) for turn in content):
        yield cells | _of_messages(row, content, notes)
        return
    if len(content) != 2:
        raise DataError(
            f"{row.place}: {len(content)} messages and no token_ids; expected two, prompt and response, for nothing "
            "says which of them the policy wrote; a newer NeMo-RL logs token_ids and token_loss_mask"
        )
    yield cells | _of_texts(content[:-1], content[-1:])


def _of_tokens(row: Row, values: dict[str, Any], content: list[Any]) -> Cells:
    """Cells of a sequence of ids, of which a mask says what the policy wrote."""
    columns = ("token_ids", "token_loss_mask", "generation_logprobs")
    lists = {name: items(row, Cell(name, values[name])) for name in columns if name in values}
    mask = lists.get("token_loss_mask")
    lengths = {name: len(cells) for name, cells in lists.items()}
    if mask is None or len(set(lengths.values())) > 1:
        described = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise DataError(f"{row.place}: {described}; expected token_ids and token_loss_mask of one length")
    length = values.get("input_lengths", len(mask))
    if not isinstance(length, int) or not 0 < length <= len(mask):
        raise DataError(f"{row.place}: input_lengths is {short(length)}; expected 1 to {len(mask)}, as token_ids has")
    mask = mask[:length]
    start = mask.index(1) if 1 in mask else length
    names = {"tokens": "token_ids", "response_mask": "token_loss_mask", "logprobs": "generation_logprobs"}
    cells: Cells = {
        role: Cell(name, lists[name][start:length])  # type: ignore[misc]
        for role, name in names.items()
        if name in lists
    }
    cells["prompt_tokens"] = Cell("token_ids", lists["token_ids"][:start])
    if all(mask[start:]) and all(isinstance(text, str) for text in content):
        cells |= _of_texts(content[:-1], content[-1:])
    return cells


def _of_messages(row: Row, turns: list[dict[str, Any]], notes: Notes) -> Cells:
    """Cells of a conversation: its last assistant turn is the response, the texts before it are the prompt."""
    own = [at for at, turn in enumerate(turns) if turn.get("role") == "assistant"]
    if not own:
        raise DataError(f"{row.place}: no message of the assistant in content; expected a response")
    if len(own) > 1:
        notes.count("responses of several turns, of which the last is measured with all before as its context")
    texts = [str(turn.get("content", "")) for turn in turns]
    return _of_texts(texts[: own[-1]], texts[own[-1] : own[-1] + 1])


def _of_texts(before: list[Any], last: list[Any]) -> Cells:
    joined = "".join(map(str, before))
    return {"prompt": Cell("content", joined), "response": Cell("content", str(last[0]) if last else "")}


FORM = Form(
    description="NeMo-RL, train_data_stepN.jsonl and val_data_stepN.jsonl: content, rewards, token_ids, "
    "token_loss_mask, generation_logprobs",
    fits=has("content", "rewards", "idx"),
    cells=_cells,
    notes=("NeMo-RL logs no values",),
    maps_columns=False,
)
