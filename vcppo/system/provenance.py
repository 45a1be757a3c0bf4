"""Provenance of results: commit, versions, hardware."""

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "vllm", "latex2sympy2_extended", "sympy", "optuna", "mlflow", "vcppo")


@functools.cache
def provenance() -> dict[str, Any]:
    """Commit and whether the tree differed from it, versions, hardware; JSON, collected once per process.

    Imports none of the packages it names; "unknown" or null where there is no source.
    """
    commit, dirty = git_state(Path(__file__).resolve().parent)
    return {"commit": commit, "dirty": dirty, "versions": versions(), "hardware": hardware()}


def git_state(folder: Path) -> tuple[str, bool | None]:
    """12 digits of the commit and whether tracked files differ from it.

    ("unknown", None) outside a repository, and of a folder that lies untracked in another one, as an environment may.
    """
    if not _git(folder, "ls-files", "."):
        return "unknown", None
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return (commit, bool(changes)) if commit is not None and changes is not None else ("unknown", None)


def versions() -> dict[str, str | None]:
    """Versions as installed, null for what is not."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def hardware() -> dict[str, Any]:
    """Processor, cores, memory; the GPU only if the process has torch loaded, since asking would load it."""
    torch = sys.modules.get("torch")
    has_gpu = torch is not None and torch.cuda.is_available()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "memory_gb": round(main_memory() / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch is not None and has_gpu else None,
    }


def main_memory() -> int:
    """Return bytes of this machine's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
