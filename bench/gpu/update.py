"""The update of policy and critic: tokens a second, utilisation, peak memory against the plan, and where time goes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.record import Numbers, Record, against_plan, device_name, peak_bytes, restart_peak, settle
from bench.gpu.sizes import Sizes, batch_of, network, peak_flops, prepared, training_flops
from vcppo.models.optimiser import Optimiser
from vcppo.planning.memory_estimate import Memory, forward_pass, gradients, held, resting, train
from vcppo.planning.shapes import Shapes
from vcppo.rl.costs import Costs
from vcppo.rl.critic_update import read_values, update_critic
from vcppo.rl.policy_update import update_policy
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch

WARM, TIMED = 1, 2
AIM = 0.40  # of the GPU's arithmetic, in the update of the 1.5 B policy
WITHIN = 0.15  # of the measured peak
# Kernels by what stands in their names, the first that fits.
CLASSES = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "cutlass", "nvjet", "cublas", "mm", "bmm", "linear"),
    "optimiser": ("adam", "multi_tensor", "foreach"),
    "collectives and copies": ("nccl", "memcpy", "memset", "copy", "cat", "all_gather", "reduce_scatter"),
    "softmax and logits": ("softmax", "logsumexp", "logits", "exp"),
    "reductions and norms": ("reduce", "norm", "mean", "sum", "rsqrt", "pow"),
    "elementwise": ("elementwise", "vectorized", "unrolled", "add", "mul", "silu", "sub", "div", "neg", "fill"),
    "indexing": ("index", "gather", "scatter", "embedding", "nonzero"),
}


def run(record: Record, sizes: Sizes) -> None:
    """Every case, the aims' own first."""
    for name, shapes in reversed(sizes.models.items()):
        for length in sizes.lengths:
            for critic in (False, True):
                who = "critic" if critic else "policy"
                record.measure(f"update/{name}/{who}/{length}", _case(shapes, sizes, length, critic=critic))
            record.measure(f"update/{name}/both/{length}", partial(both, shapes, sizes, length))
        length = sizes.lengths[0]
        plain = _case(shapes, sizes, length, critic=False, change={"compute.gradient_checkpointing": False})
        record.measure(f"update/{name}/policy/{length}/not-checkpointed", plain)
        adapters = _case(shapes, sizes, length, critic=False, change={"model.path": name, "lora.rank": 16})
        record.measure(f"update/{name}/policy/{length}/lora", adapters)
    largest, length = sizes.largest, sizes.lengths[0]
    record.measure(f"profile/{largest}/policy/{length}", lambda: profiled(sizes.models[largest], sizes, length))


def settings_for(length: int, change: dict[str, Any] | None = None) -> RunSettings:
    """As the recipes compute, one response a pass."""
    base = {"compute.dtype": "bfloat16", "compute.gradient_checkpointing": True, "micro_batch_tokens": length}
    return override(RunSettings(), base | (change or {}))


def _case(
    shapes: Shapes, sizes: Sizes, length: int, *, critic: bool, change: dict[str, Any] | None = None
) -> Callable[[], Numbers]:
    return lambda: one(settings_for(length, change), shapes, sizes, length, critic=critic)


def one(settings: RunSettings, shapes: Shapes, sizes: Sizes, length: int, *, critic: bool) -> Numbers:
    """Updates of one model that is alone on the device."""
    batch = batch_of(shapes, sizes.rows, length, sizes.prompt)
    net = network(settings, shapes, critic=critic)
    cells, places = length, length - sizes.prompt
    planned = held(net, learns=True) + gradients(net) + train(net, cells, length, places)
    restart_peak()
    step = stepper(settings, shapes, batch, length, critic=critic)
    for _ in range(WARM):
        step()
    restart_peak()
    began = settle()
    for _ in range(TIMED):
        step()
    seconds = (settle() - began) / TIMED
    tokens = sizes.rows * length
    flops = training_flops(shapes, critic=critic, tokens=tokens, length=length)
    told: Numbers = {"tokens_per_s": tokens / seconds, "tflops": flops / seconds / 1e12}
    if (peak := peak_flops(device_name())) is not None and not settings.lora.rank:
        told["utilisation"] = flops / seconds / peak
    return told | against_plan(peak_bytes(), planned.total)


def both(shapes: Shapes, sizes: Sizes, length: int) -> Numbers:
    """Policy and critic on one device, as in RL: values are read, then both are updated."""
    settings, batch = settings_for(length), batch_of(shapes, sizes.rows, length, sizes.prompt)
    nets = [network(settings, shapes, critic=critic) for critic in (False, True)]
    inputs = (length, length, length - sizes.prompt)
    base = held(nets[0], learns=True) + held(nets[1], learns=True)
    asleep = (resting(nets[1]), Memory())  # the critic was read; its own pass lets go of what it gathered
    updating = [base + gradients(net) + train(net, *inputs) + rest for net, rest in zip(nets, asleep, strict=True)]
    planned = max(memory.total for memory in (*updating, base + forward_pass(nets[1], *inputs)))
    restart_peak()
    critic = prepared(settings, shapes, critic=True, longest=length)
    step_critic = stepper(settings, shapes, batch, length, critic=True, model=critic)
    step_policy = stepper(settings, shapes, batch, length, critic=False)
    step_policy()
    step_critic()
    restart_peak()
    began = settle()
    read_values(critic, batch, length)
    scored = settle()
    step_policy()
    step_critic()
    ended = settle()
    tokens = sizes.rows * length
    told = {"scored_tokens_per_s": tokens / (scored - began), "updated_tokens_per_s": tokens / (ended - scored)}
    return told | against_plan(peak_bytes(), planned)


def stepper(
    settings: RunSettings, shapes: Shapes, batch: RolloutBatch, length: int, *, critic: bool, model: Any = None
) -> Callable[[], object]:
    """One optimiser step of the real update functions on the batch."""
    model = model or prepared(settings, shapes, critic=critic, longest=length)
    targets = torch.ones(batch.response_mask.shape)
    response = batch.response_mask.shape[1]
    if critic:
        optimiser = Optimiser(model, settings.critic_model, 1000)
        values = torch.zeros_like(targets)
        return lambda: update_critic(
            model, optimiser, batch, values, targets, kind="mse", clip_range=0.5, aggregation="token-mean",
            fixed_length=response, max_tokens=length,
        )  # fmt: skip
    optimiser = Optimiser(model, settings.policy, 1000)
    return lambda: update_policy(model, optimiser, batch, targets, None, settings, fixed_length=response, costs=Costs())


def profiled(shapes: Shapes, sizes: Sizes, length: int) -> Numbers:
    """Seconds of one update of the policy by class of kernel, and the longest kernels by name."""
    settings = settings_for(length)
    step = stepper(settings, shapes, batch_of(shapes, sizes.rows, length, sizes.prompt), length, critic=False)
    step()
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as seen:
        began = settle()
        step()
        wall = settle() - began
    spent = [(event.key, _own_seconds(event, on_gpu)) for event in seen.key_averages() if _is_work(event, on_gpu)]
    spent = sorted(((key, seconds) for key, seconds in spent if seconds > 0), key=lambda x: -x[1])
    by_class: dict[str, float] = {}
    for key, seconds in spent:
        by_class[class_of(key)] = by_class.get(class_of(key), 0.0) + seconds
    busy = sum(by_class.values())
    shares = {f"share: {name}": seconds / busy for name, seconds in sorted(by_class.items(), key=lambda x: -x[1])}
    return {"wall_s": wall, "busy_share": busy / wall, **shares, "kernels": spent[:20]}


def class_of(kernel: str) -> str:
    """Return the one of CLASSES that a kernel belongs to.

    >>> class_of("void flash_fwd_kernel<...>"), class_of("nvjet_tst_256x128"), class_of("something")
    ('attention', 'matrix products', 'other')
    """
    name = kernel.lower()
    return next((kind for kind, words in CLASSES.items() if any(word in name for word in words)), "other")


def _is_work(event: Any, on_gpu: bool) -> bool:
    """A kernel of the device rather than the operator that started it; on a processor, an operator."""
    is_kernel = str(event.device_type).endswith("CUDA")
    return is_kernel if on_gpu else event.key.startswith("aten::")


def _own_seconds(event: Any, on_gpu: bool) -> float:
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
