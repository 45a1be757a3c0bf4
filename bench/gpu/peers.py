"""TRL's PPO update on the same batch and the same model, run by the Python of an environment that has TRL."""

import dataclasses
import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from bench.gpu.record import Numbers, Record, device_name
from bench.gpu.sizes import Sizes, model_of, peak_flops, training_flops
from vcppo.planning.shapes import Shapes

SCRIPT = Path(__file__).with_name("trl_update.py")
PATIENCE_S = 500


def run(record: Record, sizes: Sizes, python: str) -> None:
    """Each model at each length, policy and critic together, as TRL updates them."""
    for name, shapes in sizes.models.items():
        for length in sizes.lengths:
            record.measure(f"trl/{name}/both/{length}", partial(update, shapes, sizes, length, python))


def update(shapes: Shapes, sizes: Sizes, length: int, python: str) -> Numbers:
    """Return what TRL's process reports; its own words where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        model_of(dataclasses.replace(shapes, layers=1), critic=False, longest=length).config.save_pretrained(folder)
        config = Path(folder) / "config.json"
        told = json.loads(config.read_text())
        config.write_text(json.dumps({**told, "num_hidden_layers": shapes.layers, "layer_types": None}))
        case = {"folder": folder, "rows": sizes.rows, "length": length, "prompt": sizes.prompt}
        done = subprocess.run(
            [python, str(SCRIPT)], input=json.dumps(case), capture_output=True, text=True, timeout=PATIENCE_S
        )
    if "out of memory" in done.stderr.lower():
        return {"out_of_memory": True}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise RuntimeError(f"TRL's process ended with exit code {done.returncode}: {last}")
    found: Numbers = json.loads(lines[-1])
    tokens = sizes.rows * length
    flops = sum(training_flops(shapes, critic=critic, tokens=tokens, length=length) for critic in (False, True))
    found["tokens_per_s"] = tokens / found["update_s"]
    if (peak := peak_flops(device_name())) is not None:
        found["utilisation"] = flops / found["update_s"] / peak
    return found
