"""TRL: Parquet files of `log_completions=True` in OUTPUT_DIR/completions, and the tables it sends to wandb.

Source: `log` and `_logs` of trl/trainer/grpo_trainer.py, the same of trl/trainer/rloo_trainer.py, at f2cd577 (July
2026, 1.10.0.dev0): step, prompt, completion, a column of floats for each reward function by its name, columns of
`log_extra`, advantage. A reward function that gave None has NaN; a completion that none of them scored is not trained
on. `_logs` holds the last generation batch and is written at each logging step, so that consecutive files may tell the
same completions. PPO's trainer logs a table of an evaluation, at temperature 0.01 (`generate_completions` of
trl/experimental/ppo/ppo_trainer.py, same version): query, model response, score.
"""

import math
from collections.abc import Iterable, Mapping

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, cells_of, has, listed
from vcppo.errors import DataError
from vcppo.tasks.rows import Row

_COLUMNS: Mapping[Role, str] = {"prompt": "prompt", "response": "completion", "step": "step"}
_OF_PPO: Mapping[Role, str] = {"prompt": "query", "response": "model response", "score": "score"}
_KNOWN = {"step", "prompt", "completion", "advantage", "image", "images"}


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    if "completion" not in row.values:
        notes.say("the responses of TRL's PPO are those of an evaluation at temperature 0.01, not those trained on")
        yield cells_of(row, _OF_PPO)
        return
    if "score" in named:
        yield cells_of(row, _COLUMNS)
        return
    others = {name: value for name, value in row.values.items() if name not in _KNOWN}
    rewards = [name for name, value in others.items() if isinstance(value, float)]
    if not rewards and None not in others.values():  # what was not scored is nan or null
        raise DataError(
            f"{row.place}: no column of rewards, it has {listed(row.values)}; expected floats of a reward function; "
            "name another as score=COLUMN"
        )
    if len(rewards) > 1:
        notes.say(
            f"score = {' + '.join(rewards)}: all columns of floats, each of weight 1, for TRL does not log its "
            "reward_weights; score=COLUMN takes one of them"
        )
    given = [value for name in rewards if not math.isnan(value := row.values[name])]
    if not given:
        notes.count("responses left out, no reward function of TRL scored them")
        return
    yield {**cells_of(row, _COLUMNS), "score": Cell(" + ".join(rewards), sum(given))}


def _fits(columns: frozenset[str]) -> bool:
    return has("prompt", "completion", "advantage")(columns) or has("query", "model response", "score")(columns)


FORM = Form(
    description="TRL, Parquet files of log_completions=True: step, prompt, completion, rewards by function, advantage",
    fits=_fits,
    cells=_cells,
    notes=(
        "TRL logs text without special tokens: the markers of the chat template and the end-of-sequence token are not "
        "in it, and neither values nor log-probabilities are logged",
    ),
    repeats=True,
)
