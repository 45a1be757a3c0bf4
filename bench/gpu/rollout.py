"""Writing responses: tokens a second of the torch generator, and of vLLM where it is installed, and peak memory."""

import importlib.util
from functools import partial

import torch

from bench.gpu.record import Numbers, Record, against_plan, peak_bytes, restart_peak, settle
from bench.gpu.sizes import Sizes, network, prepared
from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.planning.memory_estimate import generate, held
from vcppo.planning.shapes import Shapes
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings

WARM_TOKENS = 8


def run(record: Record, sizes: Sizes) -> None:
    """Both generators, every model."""
    for name, shapes in sizes.models.items():
        record.measure(f"rollout/{name}/torch", partial(torch_engine, shapes, sizes))
    if importlib.util.find_spec("vllm") is None:
        print("rollout/*/vllm: vLLM is not installed here")
        return
    for name, shapes in sizes.models.items():
        record.measure(f"rollout/{name}/vllm", partial(vllm, shapes, sizes))


def torch_engine(shapes: Shapes, sizes: Sizes) -> Numbers:
    """The torch generator beside the sharded policy whose weights it copies."""
    settings = override(RunSettings(), {"compute.dtype": "bfloat16"})
    told, peak = _timed(settings, shapes, sizes)
    net, (rows, prompt, new) = network(settings, shapes, critic=False), sizes.writing
    planned = held(net, learns=False) + generate(net, rows, prompt, new, nucleus=False, drops=False)
    return told | against_plan(peak, planned.total)


def vllm(shapes: Shapes, sizes: Sizes) -> Numbers:
    """vLLM in this process, its share of memory as by default."""
    rows, prompt, new = sizes.writing
    change = {"engine.kind": "vllm", "engine.max_length": prompt + new, "engine.max_sequences": rows}
    return _timed(override(RunSettings(), {"compute.dtype": "bfloat16", **change}), shapes, sizes)[0]


def _timed(settings: RunSettings, shapes: Shapes, sizes: Sizes) -> tuple[Numbers, int | None]:
    rows, prompt, new = sizes.writing
    restart_peak()
    policy = prepared(settings, shapes, critic=False, longest=prompt + new)
    engine = make_engine(settings.engine, policy)
    rng = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, shapes.vocabulary, (rows, prompt), generator=rng).tolist()
    engine.generate(prompts, Sampling(1.0, 1.0, min(WARM_TOKENS, new)), seed=0)
    restart_peak()
    began = settle()
    responses = engine.generate(prompts, Sampling(1.0, 1.0, new), seed=1)
    wrote = settle() - began
    peak = peak_bytes()
    began = settle()
    engine.update_weights(policy)
    refreshed = settle() - began
    tokens = sum(len(response.tokens) for response in responses)
    told = {"tokens_per_s": tokens / wrote, "ms_per_step": 1000 * wrote / new, "refresh_s": refreshed}
    return told, peak
