"""Costs of a run, counted as it goes, so that methods can be compared by more than their iterations."""

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vcppo.settings.fixed import BACKWARD


@dataclass
class Costs:
    """Totals since the run began. A token of the prompt counts where a model reads it, not where it is generated."""

    answers: int = 0  # responses sampled from prompts; continuations of them are not counted here
    generated_tokens: int = 0  # continuations included
    forward_tokens: int = 0  # of forward passes without gradient, through any model
    backward_tokens: int = 0  # of forward and backward passes, through any model
    elapsed_s: float = 0.0  # in training iterations, evaluation left out

    def metrics(self) -> dict[str, float]:
        """Totals by logged name. `compute_tokens` is in forward passes of one token."""
        return {
            "cost/answers": self.answers,
            "cost/generated_tokens": self.generated_tokens,
            "cost/forward_tokens": self.forward_tokens,
            "cost/backward_tokens": self.backward_tokens,
            "cost/compute_tokens": self.generated_tokens + self.forward_tokens + BACKWARD * self.backward_tokens,
            "cost/elapsed_s": self.elapsed_s,
            "cost/peak_memory_mb": peak_memory_mb(),
        }


@dataclass
class Clock:
    """Seconds spent in named parts of an iteration."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the block as `part`."""
        began = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        """Seconds by logged name."""
        return {f"time/{part}_s": seconds for part, seconds in self.seconds.items()}


def reset_peak_memory() -> None:
    """Reset the peak to what is held now, where the system can (CUDA; Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # no Linux, or a kernel without it: the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Peak memory of the accelerator if there is one, else of this process, since `reset_peak_memory`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
