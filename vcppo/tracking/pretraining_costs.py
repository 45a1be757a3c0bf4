"""Cost of value pretraining before RL began, so that arms can be compared with it counted.

The RL stage counts its own costs (vcppo/rl/costs.py). Those of the pretraining follow from settings, from the updates
that it took, and from the length of the fixed policy's responses, which is that at the start of RL. It is counted whole
for every run, also where several shared it. Measurements on the held-out responses are left out, as evaluation is.
"""

from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.fixed import BACKWARD
from vcppo.store.summary import summary
from vcppo.tracking.measured import MeasuredCell


def pretrain_responses(cell: MeasuredCell) -> int:
    """Return the responses of the fixed policy that were sampled for the critic, those held out included."""
    chosen = cell.settings.pretrain
    fresh = chosen.batch * cell.pretrain_updates if chosen.fresh_rollouts else 0
    return sum(cell.settings.fixed_responses) + fresh


def pretrain_compute_tokens(cell: MeasuredCell) -> float | None:
    """Return what sampling them and the critic's updates cost, in forward passes of one token; None before RL began.

    Prompts of embedded tasks are counted where a critic reads them; of others their lengths are not known here.
    """
    length = summary(cell.curves).get("start_length_tokens")
    if length is None:
        return None
    settings, task = cell.settings, cell.settings.task
    prompt = task.prompt_tokens if isinstance(task, EmbeddedTaskSettings) else 0
    passes = BACKWARD + (settings.pretrain.gae_lambda < 1)  # whose targets need its present values
    read = cell.pretrain_updates * settings.pretrain.batch * (prompt + length) * passes
    return pretrain_responses(cell) * length + read
