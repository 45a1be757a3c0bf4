"""OpenRLHF: the table of samples that it sends to wandb, and JSON Lines of its former batch inference.

Source: `WandbLogger.log_train` of openrlhf/utils/logging_utils.py at 3c3be62 (August 2026, 0.11.0): a table of
global_step, text, reward, with the first sample of each iteration and, in each new file, all rows of the one before.
`text` is prompt and response together, decoded without special tokens, so the response is what follows the first mark
of the assistant's turn. openrlhf/cli/batch_inference.py at v0.9.5 (removed in 0.10): input, output, reward.
"""

import re
from collections.abc import Iterable, Mapping

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, cells_of, has
from vcppo.diagnosis.dumps.values import text
from vcppo.errors import DataError
from vcppo.tasks.rows import Row, short

_OF_INFERENCE: Mapping[Role, str] = {"prompt": "input", "response": "output", "score": "reward"}
_MARK = re.compile(r"^(?:assistant\n{1,2}|<\|(?:im_start|start_header_id)\|>assistant[^\n]*\n{1,2})|Assistant: ?", re.M)


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    if "global_step" not in row.values or "text" not in row.values:
        yield cells_of(row, _OF_INFERENCE)
        return
    notes.say(
        "OpenRLHF's table has one sample an iteration, prompt and response in one text: the response is taken to begin "
        "after the first mark of the assistant's turn; for more of them see docs/dumps.md"
    )
    both = text(row.place, Cell("text", row.values["text"]))
    mark = _MARK.search(both)
    if mark is None:
        raise DataError(
            f'{row.place}: nothing in "text" tells where the response begins, {short(both)}; expected a line assistant '
            "or the word Assistant: before it; log prompt and response apart, see docs/dumps.md"
        )
    prompt, response = both[: mark.end()], both[mark.end() :]
    yield {
        **cells_of(row, {"score": "reward", "step": "global_step"}),
        "prompt": Cell("text", prompt),
        "response": Cell("text", response),
    }


def _fits(columns: frozenset[str]) -> bool:
    of_inference = has("input", "output", "reward")(columns) and not columns & {"score", "gts"}
    return has("global_step", "text", "reward")(columns) or of_inference


FORM = Form(
    description="OpenRLHF, its table train/generated_samples of wandb: global_step, text, reward; or input, output, "
    "reward",
    fits=_fits,
    cells=_cells,
    notes=("OpenRLHF logs text without special tokens, and neither values nor log-probabilities",),
    repeats=True,
)
