"""Tokens a second of our generator against `transformers` `generate()`, on the same weights.

    OMP_NUM_THREADS=1 python -m bench.bench_generator

Batch 128, one process, one thread, float32, random weights. Ours and theirs take turns; a value is the median over
repetitions, a ratio the median of the ratios within each. Ours always returns log-probabilities; theirs is measured
without, and with `output_logits` and `compute_transition_scores`. "full": nobody ends, 134 tokens a row.
"geometric": the head is zeroed, every token is as likely as any, so rows end at geometric lengths (mean 45 of at
most 134); only tokens up to the end of each row count.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import loading
from vcppo.settings.model import ModelSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.tasks import make_task

BATCH, TOKENS = 128, 134
AIM = 2.0
SIZES = {
    "default (88 k weights)": (ModelSettings(), 7),
    "1M (hidden 128, 4 layers)": (ModelSettings(hidden_size=128, intermediate_size=384, layers=4), 3),
}
NEVER = 10**6  # a token that no vocabulary here has


def theirs(policy: PreTrainedModel, prompts: torch.Tensor, *, logprobs: bool) -> int:
    """Useful tokens that `generate` wrote."""
    found = policy.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        top_k=0,
        max_new_tokens=TOKENS,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=logprobs,
    )
    if logprobs:
        policy.compute_transition_scores(found.sequences, found.logits, normalize_logits=True)
    new = found.sequences[:, prompts.shape[1] :]
    end = policy.generation_config.eos_token_id
    if end is None:
        return int(new.numel())
    ends = new == end
    return int(torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, new.shape[1]).sum())


def rates(ways: dict[str, Callable[[int], int]], repeats: int) -> dict[str, list[float]]:
    """Tokens a second of each way, all ways in turn, `repeats` times after one to warm up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            tokens = way(repeat)
            found[name].append(tokens / (time.perf_counter() - began))
    return {name: values[1:] for name, values in found.items()}


def floor_rate(policy: PreTrainedModel) -> tuple[float, float]:
    """(tokens a second if a token were its matrix products and nothing else, their rate in floating-point ops/s)."""
    head = policy.get_output_embeddings().weight
    matrices = [p.detach() for name, p in policy.base_model.named_parameters() if p.dim() == 2 and "embed" not in name]
    matrices.append(head.detach())
    inputs = [torch.randn(BATCH, m.shape[1]) for m in matrices]
    times = []
    for _ in range(200):
        began = time.perf_counter()
        for x, m in zip(inputs, matrices, strict=True):
            torch.nn.functional.linear(x, m)
        times.append(time.perf_counter() - began)
    spent = statistics.median(times)
    return BATCH / spent, 2 * BATCH * sum(m.numel() for m in matrices) / spent


def measure(label: str, policy: PreTrainedModel, prompts: list[list[int]], repeats: int) -> float:
    """Print one line a comparison; our tokens a second."""
    engine, tensor = TorchEngine(policy), torch.tensor(prompts)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=TOKENS)

    def ours(seed: int) -> int:
        return sum(len(answer.tokens) for answer in engine.generate(prompts, sampling, seed=seed))

    found = rates(
        {
            "ours": ours,
            "generate()": lambda seed: theirs(policy, tensor, logprobs=False),
            "generate() with log-probabilities": lambda seed: theirs(policy, tensor, logprobs=True),
        },
        repeats,
    )
    our_rate = statistics.median(found["ours"])
    for name in list(found)[1:]:
        ratio = statistics.median(a / b for a, b in zip(found["ours"], found[name], strict=True))
        print(
            f"{label}: ours {our_rate:,.0f} tokens/s, {name} {statistics.median(found[name]):,.0f} tokens/s, "
            f"ratio {ratio:.2f}, aim {AIM:g}: {'met' if ratio >= AIM else 'MISSED'}",
            flush=True,
        )
    return our_rate


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; batch {BATCH}, one thread")
    task = make_task(DigitsTaskSettings())
    tokenizer = task.tokenizer()
    prompts = [tokenizer(prompt.text)["input_ids"] for prompt in task.held_out_prompts()[:BATCH]]
    for size, (settings, repeats) in SIZES.items():
        policy = loading.new_policy(settings, tokenizer, max_length=task.max_tokens + 64, seed=0).eval()
        end = policy.config.eos_token_id
        policy.config.eos_token_id, policy.generation_config.eos_token_id = NEVER, None
        rate = measure(f"{size}, full", policy, prompts, repeats)
        floor, speed = floor_rate(policy)
        print(
            f"{size}, floor: its matrix products alone at batch {BATCH}, {floor:,.0f} tokens/s "
            f"({speed / 1e9:.0f} GFLOP/s); full takes {floor / rate:.1f} times that"
        )
        policy.config.eos_token_id = policy.generation_config.eos_token_id = end
        with torch.no_grad():
            policy.get_output_embeddings().weight.zero_()
        measure(f"{size}, geometric", policy, prompts, repeats)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
