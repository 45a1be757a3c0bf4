"""The embedded task's question put to a real model: sums whose worked solutions mostly stop after the first line.

A Qwen2 of a million weights with a byte-level BPE tokenizer of its own imitates them, so it can add and seldom adds to
the end. What RL has to teach is to go on.
"""

import json
import random
from pathlib import Path

import arithmetic

SETTINGS = (
    "task.name=maths",
    "task.maths.max_tokens=40",
    "task.maths.workers=1",
    "micro_batch_tokens=4000",
    "cold_start.steps=160",
    "cold_start.batch_tokens=1500",
    "cold_start.learning_rate=0.003",
    "cold_start.warmup_steps=30",
    "reward_model.learning_rate=1e-3",  # a model of a million weights wants a fresh network's rates
    "reward_model.warmup_steps=0",
    "pretrain.learning_rate=1e-3",
    "pretrain.warmup_steps=0",
    "policy.learning_rate=3e-4",
    "policy.warmup_steps=0",
    "critic.learning_rate=6e-4",
    "critic.warmup_steps=0",
    "reward_model.steps=30",
    "reward_model.responses=384",
    "reward_model.responses_per_prompt=8",
    "pretrain.steps=20",
    "pretrain.pool=256",
    "pretrain.held_out=96",
    "pretrain.batch=64",
    "rollout.prompts=64",
    "gae.lambda_actor=1.0",
    "advantage.whiten=batch",
    "steps=8",
    "evaluation.every=4",
    "evaluation.samples_during=2",
    "evaluation.samples=8",
)


def prepare(folder: Path) -> list[str]:
    """Make model, tokenizer and problems there; the settings that point to them, for `--set`."""
    model = arithmetic.make_model_folder(folder / "model", hidden_size=128, layers=4)
    held_out = arithmetic.make_problems(folder / "sums.jsonl", 30, seed=2, terms=3)
    rows, rng = arithmetic.problems(600, seed=1, terms=3), random.Random(0)
    for row in rows:
        first = row["solution"].splitlines()[0]
        if rng.random() < 0.6:
            row["solution"] = f"{first}\nThe answer is \\boxed{{{first.split(' = ')[1]}}}."
    training = folder / "train.jsonl"
    training.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [*SETTINGS, f"model.path={model}", f"task.maths.train={training}", f"task.maths.evaluate={held_out}"]


def flags(assignments: list[str]) -> list[str]:
    """As words of a command."""
    return [word for text in assignments for word in ("--set", text)]
