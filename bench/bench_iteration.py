"""Time of an RL iteration: how far it is from its floor, and its share outside model arithmetic.

    OMP_NUM_THREADS=1 python -m bench.bench_iteration

Runs the real RL stage of the default task for ITERATIONS iterations, one thread, from a policy and a critic that
have had COLD_STEPS updates of cold start. Timers stand around its functions; time is charged to the innermost one.
Model arithmetic is what happens inside a forward pass, a backward pass, an optimiser step or a step of the decoder;
everything else (sampling from logits, losses, padding, verifying, estimating, writing) is outside.

Seconds are of processor time, in which the turns of other processes do not count; their use of the caches does.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.nn import functional

from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models.optimiser import Optimiser
from vcppo.planning.shapes import shapes_of
from vcppo.rl import trainer
from vcppo.rl.sampler import Sampler
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.stages import rl as rl_stage
from vcppo.stages.context import StageContext
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import Journal, read_journal

ITERATIONS, COLD_STEPS = 10, 60
OUTSIDE_AIM = 0.10  # share of an iteration outside model arithmetic
FLOOR_AIM = 2.5  # times its floor
OUTSIDE_LOOP = "set up"


class Clock:
    """Seconds by (part, whether model arithmetic), each moment charged to the innermost timer alone."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, bool], float] = defaultdict(float)
        self._stack = [("other", False)]
        self._since = time.process_time()

    @contextmanager
    def within(self, part: str | None, *, arithmetic: bool = False) -> Iterator[None]:
        """Charge the block to `part`, or, given None, to the part it happens in."""
        self._charge()
        self._stack.append((part or self._stack[-1][0], arithmetic))
        yield
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        now = time.process_time()
        self.spent[self._stack[-1]] += now - self._since
        self._since = now

    def around(self, function: Callable[..., Any], part: str | None, arithmetic: bool = False) -> Callable[..., Any]:
        """The function with a timer around it."""

        def timed(*args: Any, **options: Any) -> Any:
            with self.within(part, arithmetic=arithmetic):
                return function(*args, **options)

        return timed


TIMED = [  # object, attribute, part it belongs to (None: whichever it is called from), model arithmetic?
    (rl_stage, "assemble", OUTSIDE_LOOP, False),
    (rl_stage, "save_model", OUTSIDE_LOOP, False),
    (TorchEngine, "generate", "generate", False),
    (TorchEngine, "update_weights", "generate", False),
    (trainer, "read_outputs", "score", False),
    (trainer, "update_policy", "update policy", False),
    (trainer, "update_critic", "update critic", False),
    (Sampler, "roll_out", "verify, collate, estimate", False),
    (trainer, "collate", "verify, collate, estimate", False),
    (trainer, "place_rewards", "verify, collate, estimate", False),
    (trainer, "actor_advantages", "verify, collate, estimate", False),
    (trainer, "critic_returns", "verify, collate, estimate", False),
    (trainer, "training_metrics", "metrics and tables", False),
    (rl_stage, "critic_tables", "metrics and tables", False),
    (Journal, "metrics", "journal and checkpoint", False),
    (Journal, "table", "journal and checkpoint", False),
    (rl_stage, "save_state", "journal and checkpoint", False),
    (Decoder, "_forward", None, True),
    (torch.Tensor, "backward", None, True),
    (Optimiser, "step", None, True),
]


def timed_run(context: StageContext, clock: Clock) -> None:
    """The RL stage with every timer in place; a model's forward pass is timed at its outermost module."""
    inner = torch.nn.Module.__call__
    depth = 0

    def call(module: torch.nn.Module, *args: Any, **options: Any) -> Any:
        nonlocal depth
        if depth:
            return inner(module, *args, **options)
        depth += 1
        with clock.within(None, arithmetic=True):
            result = inner(module, *args, **options)
        depth -= 1
        return result

    with ExitStack() as stack:
        for owner, name, part, arithmetic in TIMED:
            timer = clock.around(getattr(owner, name), part, arithmetic)
            stack.enter_context(patch.object(owner, name, timer))
        stack.enter_context(patch.object(torch.nn.Module, "__call__", call))
        rl_stage.rl(context)


def rate_at(rows: int, settings: RunSettings) -> float:
    """Floating-point operations a second of the layers' own matrix products with so many rows."""
    model, best = settings.model, float("inf")
    shapes = [(model.hidden_size, model.hidden_size), (model.intermediate_size, model.hidden_size)]
    shapes.append((model.hidden_size, model.intermediate_size))
    pairs = [(torch.randn(rows, inputs), torch.randn(outputs, inputs)) for outputs, inputs in shapes]
    for _ in range(200):
        began = time.perf_counter()
        for x, weight in pairs:
            functional.linear(x, weight)
        best = min(best, time.perf_counter() - began)
    return sum(2 * rows * weight.numel() for _, weight in pairs) / best


def floors(settings: RunSettings, generated: float, prompt_tokens: float, length: float) -> dict[str, float]:
    """Seconds an iteration's parts would take if they were their floating-point operations at the measured rate."""
    model = settings.model
    attention = model.layers * 4 * model.hidden_size * (length / 2)  # queries by keys, scores by values
    shapes = shapes_of(settings)
    forward = 2 * shapes.layers * shapes.layer_matrices + attention
    tokens = generated + prompt_tokens
    wide = rate_at(settings.micro_batch_tokens, settings)
    narrow = rate_at(settings.rollout.prompts * settings.rollout.samples_per_prompt, settings)
    return {
        "generate": forward * tokens / narrow,
        "score": forward * tokens / wide,
        "update policy": 3 * forward * tokens * settings.policy.epochs / wide,
        "update critic": 3 * forward * tokens * settings.policy.epochs / wide,
    }


def main() -> None:
    """Print a line a part, the share outside model arithmetic, and the floors."""
    torch.set_num_threads(1)
    settings = override(
        RunSettings(),
        {
            "steps": ITERATIONS,
            "cold_start.steps": COLD_STEPS,
            "critic.init": "policy",
            "pretrain.steps": 0,
            "evaluation.every": 0,
        },
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; default task, one thread")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        cold = run_stages(settings, out, until="cold-start")["cold-start"].folder
        context = StageContext(settings, StageFolder(out, addresses(settings)["rl"]), {"cold-start": cold})
        clock = Clock()
        timed_run(context, clock)
        records = [r["values"] for r in read_journal(context.folder.path / "journal.jsonl") if r["kind"] == "metrics"]
        prompt_tokens = len(context.tokenizer(context.task.held_out_prompts()[0].text)["input_ids"])
    responses = settings.rollout.prompts * settings.rollout.samples_per_prompt
    generated = records[-1]["cost/generated_tokens"] / ITERATIONS
    floor = floors(settings, generated, responses * prompt_tokens, generated / responses + prompt_tokens)

    parts = dict.fromkeys(part for part, _ in clock.spent if part != OUTSIDE_LOOP)
    spent = {part: (clock.spent[part, True], clock.spent[part, False]) for part in parts}
    total = sum(map(sum, spent.values()))
    arithmetic = sum(inside for inside, _ in spent.values())
    print(f"iteration: {total / ITERATIONS:.2f} s, {responses} responses, {generated / responses:.0f} tokens each")
    for part, (inside, outside) in sorted(spent.items(), key=lambda item: -sum(item[1])):
        limit = f", floor {1e3 * floor[part]:.0f} ms" if part in floor else ""
        each = (inside + outside) / ITERATIONS
        ratio = f" ({each / floor[part]:.1f} times)" if part in floor else ""
        print(
            f"{part}: {1e3 * each:.0f} ms = {(inside + outside) / total:.1%} of the iteration, "
            f"outside model arithmetic {1e3 * outside / ITERATIONS:.0f} ms = {outside / total:.1%}{limit}{ratio}"
        )
    least = sum(floor.values())
    times = total / ITERATIONS / least
    print(f"floor: {1e3 * least:.0f} ms an iteration; it takes {times:.1f} times that, ", end="")
    print(f"aim at most {FLOOR_AIM:g} times: {'met' if times <= FLOOR_AIM else 'MISSED'}")
    share = 1 - arithmetic / total
    print(f"outside model arithmetic: {share:.1%} of the iteration, aim under {OUTSIDE_AIM:.0%}: ", end="")
    print("met" if share < OUTSIDE_AIM else "MISSED")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
