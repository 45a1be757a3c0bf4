"""Speeds that were measured on this machine, in the user's cache: for these shapes, computed in this way, no others."""

import importlib.metadata
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vcppo.errors import CheckpointError
from vcppo.planning.memory_estimate import Network
from vcppo.planning.speeds import Speed
from vcppo.settings.digests import digest
from vcppo.settings.run import RunSettings
from vcppo.system.files import read_json, write_json


def speeds_file() -> Path:
    """Return the file of all measurements: $XDG_CACHE_HOME/vcppo/speeds.json, or under ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vcppo" / "speeds.json"


def stored_speed(policy: Network, settings: RunSettings) -> Speed | None:
    """Return what was measured here of such a policy, if anything was."""
    entry = _entries().get(_key(policy, settings))
    return None if entry is None else Speed.of_json(entry)


def store_speed(policy: Network, settings: RunSettings, speed: Speed) -> None:
    """Store a measurement, in place of an earlier one of the same."""
    write_json(speeds_file(), {**_entries(), _key(policy, settings): speed.as_json()})


def _entries() -> dict[str, Any]:
    """All measurements; none where the file is missing, or spoilt: what is lost is a minute."""
    try:
        entries = read_json(speeds_file())
    except CheckpointError:
        return {}
    if not isinstance(entries, dict):
        return {}
    fields = set(Speed.__dataclass_fields__)
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict) and set(entry) == fields}


def _key(policy: Network, settings: RunSettings) -> str:
    """Digest of what decides the speed: machine, threads, torch, shapes, and how passes are computed."""
    compute = settings.compute.model_dump(mode="json")
    chosen = [settings.lora.model_dump(mode="json"), settings.engine.kind, settings.micro_batch_tokens]
    return digest([_machine(), asdict(policy.shapes), compute, *chosen])


def _machine() -> list[str]:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line for file in gpus for line in file.read_text().splitlines() if line.startswith("Model")]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    torch = importlib.metadata.version("torch")
    return [platform.machine(), *names[:1], str(len(names)), *models, threads, torch]
