"""Measurements as they come: one JSON object a line, named, so that a session that was cut off goes on."""

import json
import os
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from vcppo.models.distributed import world
from vcppo.system.files import write_json
from vcppo.system.provenance import provenance

GIB = 2**30
Numbers = dict[str, Any]


class Record:
    """A file of measurements; what it holds already is not measured again.

    Args:
        until: time.monotonic() after which nothing new is begun.
        only: a pattern as of file names; others are passed over.
    """

    def __init__(self, path: Path, *, until: float = float("inf"), again: bool = False, only: str = "*") -> None:
        self.path, self.until, self.again, self.only = path, until, again, only
        self.left: list[str] = []
        self.seen: dict[str, Numbers] = {}  # what this session measured
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.done: dict[str, Numbers] = {
            entry["name"]: entry for entry in map(json.loads, lines) if "error" not in entry
        }

    def measure(self, name: str, measurement: Callable[[], Numbers]) -> Numbers | None:
        """Measure, print and write down; an error is written down too, and does not end the session."""
        if not fnmatch(name, self.only):
            return None
        if name in self.done and not self.again:
            print(f"{name}: known since {self.done[name]['when']}")
            return self.done[name]
        if time.monotonic() > self.until:
            self.left.append(name)
            return None
        began = time.perf_counter()
        entry: Numbers = {"name": name, "device": device_name(), "when": time.strftime("%Y-%m-%d %H:%M")}
        try:
            entry |= measurement()
        except (RuntimeError, ValueError, OSError) as error:  # out of memory among them
            entry["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        empty()
        entry["took_s"] = round(time.perf_counter() - began, 1)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{name}: " + "  ".join(f"{key} {_short(value)}" for key, value in entry.items() if key not in HIDDEN))
        self.seen[name] = entry
        return entry

    def describe(self) -> None:
        """Write beside the file where its numbers were made."""
        write_json(self.path.with_suffix(".where.json"), {"device": device_name(), **provenance()})


HIDDEN = ("name", "device", "when", "kernels")


def device_name() -> str:
    """The accelerator, or the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def settle() -> float:
    """Seconds, once everything that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def restart_peak() -> None:
    """Let the peak start from what is held now."""
    empty()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """Of tensors on the device since `restart_peak`; None on a processor, which does not tell."""
    return torch.cuda.max_memory_allocated(world().device) if torch.cuda.is_available() else None


def empty() -> None:
    """Give back what nobody holds any more."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def against_plan(measured: int | None, planned: float) -> Numbers:
    """The peak beside what was planned for it; within 15 % is what the plan promises."""
    told: Numbers = {"planned_gib": planned / GIB}
    if measured is not None:
        told |= {"peak_gib": measured / GIB, "planned_over_peak": planned / measured}
    return told


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
