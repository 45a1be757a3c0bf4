"""One PPO update of TRL 1.12, as its trainer does it, on a random batch; bench/gpu/peers.py runs it.

Reads {"folder", "rows", "length", "prompt"} as JSON from standard input: a folder with the config.json of the policy,
responses a batch, tokens of a prompt with its response, tokens of the prompt. Prints {"update_s", "peak_gib", "trl"}.

The responses are given instead of generated. What is timed begins with the first micro-batch of the update and ends
after the last: forward and backward pass of policy and value model, one response at a time, and the optimiser's step.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

PAD, END, FIRST = 0, 1, 2  # FIRST: of the ids that responses are made of
GIB = 2**30
BATCHES = 2  # the second one is timed


class Watch:
    """Begin and end of the updates of a batch, and their memory."""

    def __init__(self, rows: int) -> None:
        self.rows, self.passes, self.began, self.seconds, self.peak = rows, 0, 0.0, 0.0, 0.0

    @contextmanager
    def around(self, inner: Any) -> Iterator[None]:
        """One pass of a micro-batch."""
        if self.passes % self.rows == 0:
            self.began = now()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
        with inner:
            yield
        self.passes += 1
        if self.passes % self.rows == 0:
            self.seconds = now() - self.began
            self.peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0


def now() -> float:
    """Seconds, once everything that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Build TRL's trainer, have it update, print."""
    case = json.load(sys.stdin)
    rows, length, prompt = case["rows"], case["length"], case["prompt"]
    config = AutoConfig.from_pretrained(case["folder"])
    config.pad_token_id, config.eos_token_id = PAD, END
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        policy, reference = (AutoModelForCausalLM.from_config(config) for _ in range(2))
        config.num_labels = 1
        value, reward = (AutoModelForSequenceClassification.from_config(config) for _ in range(2))

    words = Tokenizer(WordLevel({"<pad>": PAD, "<end>": END, "a": FIRST}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST, config.vocab_size, (rows * BATCHES, length), generator=rng)
    prompts = Dataset.from_dict({"input_ids": ids[:, :prompt].tolist()})

    def given(model: Any, queries: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The responses to these prompts, and logits of the right shape that take no memory."""
        responses = ids[: len(queries), prompt:].to(queries.device)
        logits = torch.zeros((1, 1, config.vocab_size), device=queries.device)
        return torch.cat([queries, responses], dim=1), logits.expand(*responses.shape, -1)

    ppo_trainer.batch_generation = given
    with tempfile.TemporaryDirectory() as folder:
        args = PPOConfig(
            output_dir=folder, bf16=True, use_cpu=device == "cpu", gradient_checkpointing=True, report_to="none",
            per_device_train_batch_size=1, gradient_accumulation_steps=rows, num_mini_batches=1, num_ppo_epochs=1,
            total_episodes=rows * BATCHES, local_rollout_forward_batch_size=1, response_length=length - prompt,
            num_sample_generations=0, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = PPOTrainer(
            args=args, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
            value_model=value, train_dataset=prompts,
        )  # fmt: skip
        watch, accumulate = Watch(rows), trainer.accelerator.accumulate
        trainer.accelerator.accumulate = lambda *models: watch.around(accumulate(*models))
        trainer.train()
    assert watch.passes == rows * BATCHES, f"{watch.passes} passes, expected {rows * BATCHES}"
    print(json.dumps({"update_s": watch.seconds, "peak_gib": watch.peak, "trl": trl.__version__}))


if __name__ == "__main__":
    main()
