"""Time of one update of policy and critic by PPO, against TRL's on the same model and shapes, and against its floor.

    nox -s trl -- MODEL [--responses 8] [--prompt 32] [--length 96] [--updates 3] [--rounds 2]

MODEL is a folder that transformers loads; `make real` makes one. Both have a policy and a critic of that size with
plain AdamW, float32, clipped losses, one minibatch in one forward and backward pass, and every response as long as the
others, so that padding costs nobody. TRL's time is that between two steps of its optimiser, in a `PPOTrainer` as it
comes; ours is that of `update_policy` and `update_critic`. The floor has both models' passes, logits of the response
alone, and both steps, and nothing else: no ratio, no clip, no metrics. Rounds of the three alternate.

Seconds are of processor time. A ratio below 1 is faster than the peer.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

from vcppo.models.loading import load_critic, load_policy
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import prepare
from vcppo.rl.costs import Costs
from vcppo.rl.critic_update import read_values, update_critic
from vcppo.rl.policy_update import read_logprobs, update_policy
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch

RATE = 1e-6  # so low that no number of updates takes a policy anywhere


class Timed(torch.optim.AdamW):
    """AdamW that knows when its steps ended."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=RATE, fused=True)
        self.ended: list[float] = []

    def step(self, closure: Any = None) -> Any:
        """Step, and note the time."""
        result = super().step(closure)
        self.ended.append(time.process_time())
        return result


def batch_of(model: Path, responses: int, prompt: int, length: int) -> RolloutBatch:
    """Random tokens: what they are does not matter to the time."""
    vocabulary = len(AutoTokenizer.from_pretrained(model))
    draw = torch.Generator().manual_seed(0)
    return RolloutBatch(
        input_ids=torch.randint(vocabulary, (responses, prompt + length), generator=draw),
        prompt_lengths=torch.full((responses,), prompt),
        response_mask=torch.ones(responses, length, dtype=torch.bool),
        old_logprobs=torch.zeros(responses, length),
        scores=torch.zeros(responses),
        correct=torch.zeros(responses, dtype=torch.bool),
        truncated=torch.zeros(responses, dtype=torch.bool),
        group=torch.arange(responses),
    )


def ours(model: Path, batch: RolloutBatch) -> Callable[[], None]:
    """One update of policy and critic as the trainer takes them."""
    everything = batch.input_ids.numel()
    settings = override(
        RunSettings(), {"micro_batch_tokens": everything, "kl.placement": "none", "policy.learning_rate": RATE}
    )
    policy, critic = (
        prepare(net, settings.compute, settings.lora, seed=0).train()
        for net in (load_policy(model), load_critic(model, head_seed=0))
    )
    optimisers = [Optimiser(net, settings.policy, 1000) for net in (policy, critic)]
    length, costs = batch.response_mask.shape[1], Costs()
    old_logprobs = read_logprobs(policy, batch, temperature=1.0, max_tokens=everything)
    sampled = RolloutBatch(**{**vars(batch), "old_logprobs": old_logprobs})
    values = read_values(critic, batch, everything)
    advantages = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))

    def update() -> None:
        update_policy(policy, optimisers[0], sampled, advantages, None, settings, fixed_length=length, costs=costs)
        update_critic(
            critic, optimisers[1], sampled, values, values + advantages, kind="clipped", clip_range=0.2,
            aggregation="token-mean", fixed_length=length, max_tokens=everything,
        )  # fmt: skip

    return update


def floor(model: Path, batch: RolloutBatch) -> Callable[[], None]:
    """The passes and steps that any implementation with these models takes."""
    policy, critic = load_policy(model), load_critic(model, head_seed=0)
    optimisers = [Timed(net.parameters()) for net in (policy, critic)]
    prompt, responses = int(batch.prompt_lengths[0]), batch.input_ids[:, int(batch.prompt_lengths[0]) :]
    head = nn.Linear(policy.config.hidden_size, 1)

    def states(net: Any) -> Tensor:
        hidden: Tensor = net.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        return hidden[:, prompt - 1 : -1]

    def update() -> None:
        logits = policy.get_output_embeddings()(states(policy))
        cross_entropy(logits.flatten(0, 1), responses.flatten()).backward()
        head(states(critic)).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    return update


def of_trl(model: Path, batch: RolloutBatch, updates: int, folder: Path) -> list[float]:
    """Seconds of each of TRL's updates but the first, whose generation stands before it."""
    responses, prompt = batch.input_ids.shape[0], int(batch.prompt_lengths[0])
    length = batch.response_mask.shape[1]
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    policy.generation_config.eos_token_id = None
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32) for _ in range(2)
    )
    prompts = Dataset.from_dict({"input_ids": batch.input_ids[:, :prompt].tolist()})
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", save_strategy="no",
            per_device_train_batch_size=responses, gradient_accumulation_steps=1, num_mini_batches=1,
            num_ppo_epochs=updates + 1, total_episodes=responses, response_length=length, max_grad_norm=1.0,
            num_sample_generations=0, local_rollout_forward_batch_size=responses, gradient_checkpointing=False,
        ),
        processing_class=tokenizer, model=policy, ref_model=AutoModelForCausalLM.from_pretrained(model),
        reward_model=reward, value_model=value, train_dataset=prompts, eval_dataset=prompts,
        optimizers=(optimiser := Timed([*policy.parameters(), *value.parameters()]), None),
    )  # fmt: skip
    trainer.train()
    return [later - earlier for earlier, later in zip(optimiser.ended, optimiser.ended[1:], strict=False)]


def timed(update: Callable[[], None], updates: int) -> list[float]:
    """Processor seconds of each."""
    seconds = []
    for _ in range(updates):
        began = time.process_time()
        update()
        seconds.append(time.process_time() - began)
    return seconds


def main() -> None:
    """Print the three, and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    for name, default in {"responses": 8, "prompt": 32, "length": 96, "updates": 3, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    batch = batch_of(given.model, given.responses, given.prompt, given.length)
    seconds: dict[str, list[float]] = {"floor": [], "vcppo": [], "TRL": []}
    ways = {"floor": floor, "vcppo": ours}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for name, make in ways.items():
                update = make(given.model, batch)
                update()  # moments are made, memory is touched
                seconds[name] += timed(update, given.updates)
                del update
            seconds["TRL"] += of_trl(given.model, batch, given.updates, Path(folder))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = batch.input_ids.numel()
    for name, values in seconds.items():
        print(
            f"{name:6} {medians[name]:6.2f} s an update of policy and critic [{min(values):.2f} to {max(values):.2f}], "
            f"{tokens / medians[name]:.0f} tokens/s"
        )
    to_trl, to_floor = (medians["vcppo"] / medians[name] for name in ("TRL", "floor"))
    print(f"vcppo: {to_trl:.2f} times TRL, {to_floor:.2f} times its floor")


if __name__ == "__main__":
    main()
