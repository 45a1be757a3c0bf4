"""Cost a token of the gradients of an alignment, against a plain forward pass.

    python -m bench.bench_alignment [--responses 128] [--tokens 64] [--chunks 16] [--lambdas 4] [--hidden 64]

A random Llama of two layers with the embedded task's tokenizer, float32. One critic at some lambdas costs so many
backward passes, and one each for Monte-Carlo returns, length and second moments. Times are of the processor, so that
other work on the machine counts little; the two take turns, and the fastest of each is printed.
"""

import argparse
import time

import torch

from vcppo.diagnosis.alignment import measure_alignments
from vcppo.diagnosis.gradient_passes import GradientSettings
from vcppo.diagnosis.responses import Reading
from vcppo.models import forward, loading
from vcppo.models.prepared import declare
from vcppo.rl.policy_update import read_logprobs
from vcppo.settings.loading import load_settings
from vcppo.settings.model import ComputeSettings
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("responses", 128),
        ("tokens", 64),
        ("chunks", 16),
        ("lambdas", 4),
        ("hidden", 64),
        ("turns", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    settings = load_settings(assignments=(f"model.hidden_size={chosen.hidden}",))
    tokenizer = make_task(settings.task).tokenizer()
    policy = loading.new_policy(settings.model, tokenizer, max_length=chosen.tokens + 8, seed=0)
    declare(policy, ComputeSettings(), policy.device)
    rng, shape = torch.Generator().manual_seed(0), (chosen.responses, chosen.tokens)
    ids = torch.randint(1, len(tokenizer), (chosen.responses, chosen.tokens + 4), generator=rng)
    mask, scores = torch.ones(shape, dtype=torch.bool), torch.randint(2, shape[:1], generator=rng).float() * 2 - 1
    none, group = torch.zeros(shape[:1], dtype=torch.bool), torch.arange(chosen.responses)
    batch = RolloutBatch(ids, torch.full(shape[:1], 4), mask, torch.zeros(shape), scores, none, none, group)
    reading = Reading("random", torch.randn(shape, generator=rng), scores[:, None].expand(shape), mask, scores, group)
    read_logprobs(policy, batch, temperature=1.0, max_tokens=4096)  # warm
    lambdas = [1.0 - 0.5**number for number in range(chosen.lambdas)]
    how = GradientSettings(temperature=1.0, max_tokens=4096, batch_size=64, chunks=chosen.chunks)
    plain = took = float("inf")
    for _ in range(chosen.turns):
        start = time.process_time()
        read_logprobs(policy, batch, temperature=1.0, max_tokens=4096)
        middle = time.process_time()
        (found,) = measure_alignments([reading], lambdas, policy, batch, how)
        plain, took = min(plain, middle - start), min(took, time.process_time() - middle)
    tokens = int(batch.total_lengths.sum())
    groups = len(list(forward.split_rows(batch.total_lengths, 4096)))
    print(f"{tokens} tokens, {chosen.lambdas} lambdas, {chosen.chunks} chunks; forward in {groups} micro-batches")
    print(f"forward pass        {1e6 * plain / tokens:8.2f} microseconds a token")
    print(f"alignment           {1e6 * took / tokens:8.2f} microseconds a token, {took / plain:.1f} forward passes")
    print(f"a kind of advantage {took / plain / (chosen.lambdas + 3):8.2f} forward passes")
    print(f"backward passes over micro-batches: {found.alignments[0].backward_passes}")


if __name__ == "__main__":
    main()
