"""Continuations of responses, as VinePPO takes them: `branch` against ways that read every prefix again.

    OMP_NUM_THREADS=1 python -m bench.bench_branch [RESPONSES]

Each of 96 responses (or RESPONSES) is continued from 8 places, 9 times from each; one process, one thread, float32. The
default model with its head zeroed: every token is as likely as any, so responses end at geometric lengths (mean 46 of
at most 141). Against our own `generate`, with the prefixes as prompts, in batches of 128 of nearly one length, and
against `generate()` of transformers on every 8th of these batches. The ways take turns; a ratio is the median over
turns of the ratios of tokens a second of processor time (which is the clock's where the machine does nothing else).
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from bench.bench_generator import floor_rate
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import loading
from vcppo.settings.fixed import GENERATOR_ROWS
from vcppo.settings.model import ModelSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.tasks import make_task

RESPONSES, PLACES, TIMES = 96, 8, 9
BATCH, SUBSET, TURNS = 128, 8, 3
OTHER_ROWS = (128, 256, 512, 1024)
AIM = 1.5
Way = Callable[[int], int]  # seed -> tokens written


def points_of(prompts: list[list[int]], stems: list[list[int]], limit: int) -> list[BranchPoint]:
    """PLACES places of each response, evenly, from the prompt's end to before the last token; each TIMES times."""
    points = []
    for i, (prompt, stem) in enumerate(zip(prompts, stems, strict=True)):
        written = [(len(stem) - len(prompt) - 1) * place // PLACES for place in range(PLACES)]
        points += [BranchPoint(i, len(prompt) + n, limit - n) for n in written for _ in range(TIMES)]
    return points


def theirs(policy: PreTrainedModel, prefixes: list[list[int]], limit: int) -> int:
    """Tokens that transformers wrote after these prefixes, up to the end of each row."""
    size = max(len(prefix) for prefix in prefixes)
    ids = torch.tensor([[0] * (size - len(prefix)) + prefix for prefix in prefixes])
    mask = torch.tensor([[0] * (size - len(prefix)) + [1] * len(prefix) for prefix in prefixes])
    found = policy.generate(ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=limit, pad_token_id=0)
    new = found[:, size:]
    ends = new == policy.config.eos_token_id
    return int(torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, new.shape[1]).sum())


def rates(ways: dict[str, Way]) -> dict[str, list[float]]:
    """Tokens a second of processor time of each way, all ways in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            began = time.process_time()
            tokens = way(turn)
            found[name].append(tokens / (time.process_time() - began))
    return found


def main(responses: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; one thread")
    task = make_task(DigitsTaskSettings())
    tokenizer = task.tokenizer()
    policy = loading.new_policy(ModelSettings(), tokenizer, max_length=task.max_tokens + 64, seed=0).eval()
    with torch.no_grad():
        policy.get_output_embeddings().weight.zero_()
    engine, sampling = TorchEngine(policy), Sampling(1.0, 1.0, task.max_tokens)
    prompts = [tokenizer(prompt.text)["input_ids"] for prompt in task.held_out_prompts()[:responses]]
    written = engine.generate(prompts, sampling, seed=0)
    stems = [[*prompt, *response.tokens] for prompt, response in zip(prompts, written, strict=True)]
    points = points_of(prompts, stems, task.max_tokens)
    prefixes = sorted((stems[point.stem][: point.length] for point in points), key=len)
    batches = [prefixes[start : start + BATCH] for start in range(0, len(prefixes), BATCH)]
    limits = [len(prompts[0]) + task.max_tokens - len(batch[0]) for batch in batches]

    def branching(rows: int) -> Way:
        chosen = TorchEngine(policy, rows=rows)
        return lambda seed: sum(len(a.tokens) for a in chosen.branch(stems, points, sampling, seed=seed))

    def reading_again(seed: int) -> int:
        cut = [Sampling(1.0, 1.0, limit) for limit in limits]
        found = [engine.generate(batch, how, seed=seed) for batch, how in zip(batches, cut, strict=True)]
        return sum(len(response.tokens) for batch in found for response in batch)

    def with_transformers(_seed: int) -> int:
        some = list(zip(batches, limits, strict=True))[::SUBSET]
        return sum(theirs(policy, batch, limit) for batch, limit in some)

    ours = f"branch, {GENERATOR_ROWS} rows together"
    again, peer = "our generate, prefixes read again", "generate() of transformers, prefixes read again"
    ways = {ours: branching(GENERATOR_ROWS), again: reading_again, peer: with_transformers}
    ways |= {f"branch, {rows} rows together": branching(rows) for rows in OTHER_ROWS if rows != GENERATOR_ROWS}
    found = rates(ways)
    print(f"{len(points)} continuations of {responses} responses of {sum(map(len, stems)) / responses:.0f} tokens")
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(found[ours], values, strict=True))
        verdict = f", aim {AIM:g}: {'met' if ratio >= AIM else 'MISSED'}" if name in (again, peer) else ""
        print(f"{name}: {statistics.median(values):,.0f} tokens/s, {ours} is {ratio:.2f} times that{verdict}")
    rate, (floor, speed) = statistics.median(found[ours]), floor_rate(policy)
    print(
        f"floor: matrix products at batch 128, {floor:,.0f} tokens/s ({speed / 1e9:.0f} GFLOP/s), {floor / rate:.1f} x"
    )
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        ways[ours](0)
    kernels = seen.key_averages()
    spent = sum(kernel.self_cpu_time_total for kernel in kernels)
    for kernel in sorted(kernels, key=lambda kernel: -kernel.self_cpu_time_total)[:8]:
        print(f"  {kernel.self_cpu_time_total / spent:5.1%} {kernel.key}")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RESPONSES)
