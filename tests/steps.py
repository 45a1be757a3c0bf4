"""A script for several processes: some updates of a tiny policy, saved or gone on from; prints what it saw as JSON.

torchrun --nproc-per-node 2 tests/steps.py FOLDER UPDATES [key=value of compute and lora ...]
"""

import json
import sys
from pathlib import Path

from tiny import new_policy, random_batch, tiny

from vcppo.models import forward
from vcppo.models.checkpoints import load_state, save_model, save_state
from vcppo.models.distributed import together
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import load_weights, prepare
from vcppo.settings.optimiser import OptimiserSettings
from vcppo.system.processes import run_as_rank
from vcppo.tasks import make_task


def main(folder: Path, updates: int, *assignments: str) -> None:
    """Go on from the folder's state, if it has one, and save the next."""
    settings = tiny(*assignments)
    with together() as world:
        policy = prepare(new_policy(*assignments), settings.compute, settings.lora, seed=0)
        optimiser = Optimiser(policy, OptimiserSettings(learning_rate=0.01), 100)
        state = load_state(folder / "state.pt")
        if state is not None:
            load_weights(policy, state["policy"])
            optimiser.load_state_dict(state["optimiser"])
        told = []
        for _ in range(updates):
            batch = random_batch([9, 3, 5, 7, 1], seed=optimiser.taken)
            total = 0.0
            for own in forward.micro_batches_of_rank(policy, batch.total_lengths, 14):
                logprobs, _ = forward.response_logprobs(policy, batch.take(own.rows), 1.0)
                (-own.weight * logprobs.sum()).backward()
                total -= float(logprobs.detach().sum()) * own.counts
            told.append([world.total({"loss": total})["loss"], optimiser.step()])
        save_state(folder / "state.pt", {"policy": policy.state_dict(), "optimiser": optimiser.state_dict()})
        save_model(policy, make_task(settings.task).tokenizer(), folder / f"policy-{optimiser.taken}")
        if world.is_main:
            print(json.dumps({"told": told, "size": world.size}))


if __name__ == "__main__":
    run_as_rank(lambda: main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
