"""Tokens a second of vLLM against our torch engine, on the same weights and cores.

    VCPPO_VLLM_PYTHON=/path/to/python OMP_NUM_THREADS=1 python -m bench.bench_vllm

A 1M Qwen2 (hidden 128, 4 layers, heads of 32), float32, random weights, prompts of 32 tokens, one thread each; the two
take turns, and a ratio is the median of the ratios within each turn. Both return log-probabilities. "nobody ends": 256
tokens a row. "geometric": the head is zeroed, so rows end at geometric lengths. "continuations": 9 from each of 8
places of 4 responses, as VinePPO samples them. vLLM runs as a server; weights and responses pass between the processes.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Engine, Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.engines.vllm.engine import VllmEngine
from vcppo.models.sharding import prepare
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.types import Generation

BATCH, PROMPT, TOKENS, TURNS = 128, 32, 256, 3
END, NEVER, VOCABULARY = 1, 10**6, 512
PLACES, SAMPLES, RESPONSES = 8, 9, 4
Way = Callable[[Engine, int], list[Generation]]


def model() -> PreTrainedModel:
    """One million weights."""
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=PROMPT + TOKENS,
        tie_word_embeddings=True,
        eos_token_id=END,
    )
    torch.manual_seed(0)
    return prepare(AutoModelForCausalLM.from_config(config).eval(), ComputeSettings(), LoraSettings(), seed=0)


def rate(way: Way, engine: Engine, turn: int) -> float:
    """Useful tokens a second."""
    began = time.perf_counter()
    responses = way(engine, turn)
    return sum(len(response.tokens) for response in responses) / (time.perf_counter() - began)


def compare(label: str, way: Way, ours: Engine, theirs: VllmEngine) -> None:
    """Print one line."""
    pairs = [(rate(way, theirs, turn), rate(way, ours, turn)) for turn in range(TURNS + 1)][1:]
    vllm, torch_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{label}: vLLM {vllm:,.0f} tokens/s, torch engine {torch_rate:,.0f} tokens/s, ratio {ratio:.2f}; "
        f"prefix cache {theirs.cache_use.hit_rate:.0%} of the prompts' tokens",
        flush=True,
    )


def main() -> None:
    python = os.environ.get("VCPPO_VLLM_PYTHON")
    if python is None:
        sys.exit("VCPPO_VLLM_PYTHON names no Python with vLLM; docs/vllm.md says how to make one")
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; batch {BATCH}, one thread each")
    policy = model()
    began = time.perf_counter()
    theirs = make_engine(VllmEngineSettings(mode="server", python=python), policy)
    assert isinstance(theirs, VllmEngine)
    print(f"vLLM started in {time.perf_counter() - began:.1f} s")
    times = []
    for _ in range(10):
        began = time.perf_counter()
        theirs.update_weights(policy)
        times.append(time.perf_counter() - began)
    print(f"weights pushed in {statistics.median(times) * 1e3:.0f} ms")

    rng = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, VOCABULARY, (BATCH, PROMPT), generator=rng).tolist()
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=TOKENS)
    policy.config.eos_token_id = NEVER
    ours = TorchEngine(policy)
    theirs.update_weights(policy)
    written = ours.generate(prompts[:RESPONSES], sampling, seed=0)
    stems = [[*prompt, *response.tokens] for prompt, response in zip(prompts, written, strict=False)]
    places = [PROMPT + TOKENS * k // PLACES for k in range(PLACES)]
    points = [BranchPoint(s, n, len(stems[s]) - n) for s in range(RESPONSES) for n in places for _ in range(SAMPLES)]
    compare("nobody ends", lambda e, turn: e.generate(prompts, sampling, seed=turn), ours, theirs)
    compare("continuations", lambda e, turn: e.branch(stems, points, sampling, seed=turn), ours, theirs)

    policy.config.eos_token_id = END
    with torch.no_grad():
        policy.get_output_embeddings().weight.zero_()
    ours.update_weights(policy)
    theirs.update_weights(policy)
    compare("geometric", lambda e, turn: e.generate(prompts, sampling, seed=turn), ours, theirs)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
