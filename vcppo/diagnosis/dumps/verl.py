"""verl: JSON Lines of `trainer.rollout_data_dir` and `trainer.validation_data_dir`, a file STEP.jsonl for each step.

Source: `_write_generations` and `_log_rollout_data` of verl/trainer/ppo/ray_trainer.py and of
verl/trainer/ppo/v1/trainer_base.py at 1dda039 (August 2026, 0.10.0.dev); `_dump_generations` of
verl/trainer/ppo/ray_trainer.py at b178a3c (January 2026, 0.7.0) writes the same columns: input, output, gts, score,
step, and each list of `reward_extra_info` that has an entry for every response. `score` is the sum of
`token_level_scores`, which no KL penalty is in. Prompts and responses are decoded without special tokens.
"""

from collections.abc import Iterable, Mapping

from vcppo.diagnosis.dumps.form import Cells, Form, Notes, Role, cells_of, has
from vcppo.tasks.rows import Row

_COLUMNS: Mapping[Role, str] = {"prompt": "input", "response": "output", "score": "score", "step": "step"}


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    yield cells_of(row, _COLUMNS)


def _fits(columns: frozenset[str]) -> bool:
    return has("input", "output", "score")(columns) and bool(columns & {"gts", "step"})


FORM = Form(
    description="verl, JSON Lines of trainer.rollout_data_dir: input, output, gts, score, step",
    fits=_fits,
    cells=_cells,
    notes=(
        "verl logs text without special tokens: the markers of the chat template and the end-of-sequence token are "
        "not in it, and neither values nor log-probabilities are logged",
    ),
)
