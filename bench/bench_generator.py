"""Tokens a second of our generator against `transformers` `generate()`, on the same weights.

    OMP_NUM_THREADS=1 python -m bench.bench_generator
    OMP_NUM_THREADS=1 python -m bench.bench_generator --only drawing    # or real: some seconds of processor

Batch 128, one process, one thread, float32, random weights. Ours and theirs take turns; a value is the median over
repetitions, a ratio the median of the ratios within each. Ours always returns log-probabilities; theirs is measured
without, and with `output_logits` and `compute_transition_scores`. "full": nobody ends, 134 tokens a row.
"geometric": the head is zeroed, every token is as likely as any, so rows end at geometric lengths (mean 45 of at
most 134); only tokens up to the end of each row count.

"Real": SmolLM2's width and vocabulary with 2 of its 30 layers, 4 problems of 60 tokens with 8 responses of 16 each, by
processor time, since other work on the machine slows both alike. Beside it drawing alone, 32 rows of 49,152 tokens:
with a nucleus, without one, and with one as it was sought before, by two sorts of the whole vocabulary.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine, outside_nucleus, sample
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


def theirs(
    policy: PreTrainedModel, prompts: torch.Tensor, *, logprobs: bool, top_p: float = 1.0, tokens: int = TOKENS
) -> int:
    """Useful tokens that `generate` wrote."""
    found = policy.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        top_k=0,
        top_p=top_p,
        max_new_tokens=tokens,
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


def twice_sorted(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """Compute what `outside_nucleus` does, by two sorts of the vocabulary."""
    ordered, order = weights.sort(dim=-1, descending=True)
    return (ordered.cumsum(dim=-1) - ordered >= top_p).gather(1, order.argsort(dim=-1))


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of processor that the work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def drawing() -> None:
    """Print what drawing takes of a real vocabulary, with a nucleus and without."""
    logits = 8.0 * torch.randn(32, 49152, generator=torch.Generator().manual_seed(0))  # the likeliest 512 have 0.999
    uniforms, weights = torch.rand(32), logits.softmax(dim=-1)
    assert torch.equal(outside_nucleus(weights, 0.9), twice_sorted(weights, 0.9))
    ways = {
        "without": lambda: sample(logits, uniforms, Sampling(1.0, 1.0, 1)),
        "with": lambda: sample(logits, uniforms, Sampling(1.0, 0.9, 1)),
        "nucleus": lambda: outside_nucleus(weights, 0.9),
        "two sorts": lambda: twice_sorted(weights, 0.9),
    }
    spent = {name: statistics.median(processor_s(work) for _ in range(9)) for name, work in ways.items()}
    print(
        f"drawing 32 of 49,152: {1e3 * spent['without']:.1f} ms, with a nucleus {1e3 * spent['with']:.1f} ms; the "
        f"nucleus {1e3 * spent['nucleus']:.1f} ms, by two sorts {1e3 * spent['two sorts']:.1f} ms",
        flush=True,
    )


def real_vocabulary(repeats: int = 3) -> None:
    """Print generation against generate() with a real vocabulary, with a nucleus and without."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    config = AutoConfig.for_model("llama", num_hidden_layers=2, vocab_size=49152, tie_word_embeddings=True, **shape)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    policy = AutoModelForCausalLM.from_config(config).eval()
    policy.generation_config.eos_token_id = None
    engine = TorchEngine(policy)
    prompts = torch.randint(49152, (4, 60)).repeat_interleave(8, dim=0)
    given = prompts.tolist()
    for top_p in (1.0, 0.9):
        sampling = Sampling(1.0, top_p, 16)
        their_way = partial(theirs, policy, prompts, logprobs=True, top_p=top_p, tokens=16)
        ratios = []
        for seed in range(repeats + 1):
            ours = processor_s(partial(engine.generate, given, sampling, seed=seed))
            ratios.append(processor_s(their_way) / ours)
        ratio = statistics.median(ratios[1:])
        print(
            f"real vocabulary, top-p {top_p:g}: {ratio:.2f} times as fast as generate() with log-probabilities",
            flush=True,
        )


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
        return sum(len(response.tokens) for response in engine.generate(prompts, sampling, seed=seed))

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("drawing", "real"), help="one measurement alone")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    only = parser.parse_args().only
    if only is not None:
        {"drawing": drawing, "real": real_vocabulary}[only]()
        return
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
    drawing()
    real_vocabulary()
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
