"""How verl 0.9.1 comes to know the trainer, and what it is told."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vcppo.settings.loading import load_settings
from vcppo.studies.verl import PLUGIN, TRAINER, VERL
from vcppo.studies.verl.cells import runs_of
from vcppo.studies.verl.launching import command_line
from vcppo.studies.verl.names import MAPPED

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]

WORDS = ["data.train_files=train.parquet", "data.val_files=val.parquet"]
SETTINGS = [
    "model.path=models/policy",
    "policy.schedule=constant",
    "critic.schedule=cosine",
    "critic.init=policy",
    "rollout.max_tokens=64",
]
ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    """Return what a fresh interpreter prints."""
    there = {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, **there}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_it_is_the_version_that_we_say() -> None:
    assert importlib.metadata.version("verl") == VERL


# How verl comes to know the trainer

REGISTERED = "import verl; from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY as r; print(r.get('vcppo'))"


def test_verl_loads_the_plugin_by_its_entry_point(tmp_path: Path) -> None:
    metadata = tmp_path / "vcppo_here-1.dist-info"  # as an installed vcppo has it, whether this one is installed or not
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vcppo-here\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[verl.plugins]\nvcppo = {PLUGIN}\n")
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    assert declared == {"vcppo": PLUGIN}
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    assert "VcppoTrainer" in python(REGISTERED, PYTHONPATH=path)


def test_it_is_seen_before_ray_starts_that_verl_has_not_loaded_the_plugin() -> None:
    code = "from vcppo.studies.verl.launch import missing_registration as m; print(m())"
    said = python(code, VERL_USE_EXTERNAL_PLUGINS="none", VERL_USE_EXTERNAL_MODULES="")
    assert said.startswith(f"verl {VERL} has not loaded our trainer: expected {PLUGIN}")


# What verl is told


def test_verl_takes_every_word_that_we_say(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    variants: list[list[str]] = [
        [],
        ["kl.placement=loss", "policy.aggregation=fixed-length", "advantage.clip=5.0", "advantage.whiten=batch"],
        [
            "kl.placement=reward",
            "gae.length_adaptive_alpha=0.05",
            "critic.aggregation=fixed-length",
            "pretrain.steps=20",
        ],
        ["advantage.estimator=grpo", "rollout.samples_per_prompt=2"],
    ]
    said: set[str] = set()
    with initialize_config_module("verl.trainer.config", version_base=None):
        for variant in variants:
            base = [x for x in SETTINGS if not x.startswith("critic.") or "advantage.estimator=grpo" not in variant]
            for run in runs_of(load_settings(None, [*base, *variant]), WORDS):
                config = compose("ppo_trainer", overrides=[*command_line(run.overrides), *run.words])
                said |= run.overrides.keys()
                for name, value in run.overrides.items():
                    assert OmegaConf.select(config, name.lstrip("+")) == value, name
    named = {key for mapped in MAPPED.values() for key in (*mapped.rl, *mapped.pretraining)}
    assert named <= said  # none is in the table only


def test_verl_s_own_main_takes_the_command_line_of_a_cell() -> None:
    """And loads the plugin as an external module."""
    (run,) = runs_of(load_settings(None, [*SETTINGS, "pretrain.steps=0"]), WORDS)
    command = [sys.executable, "-W", "ignore", "-m", "vcppo.studies.verl.launch", "--parent", str(os.getpid())]
    words = [*command_line(run.overrides), *run.words, "--cfg", "job"]  # Hydra prints the configuration and ends
    there = {**os.environ, "PYTHONPATH": str(ROOT), "VERL_USE_EXTERNAL_MODULES": PLUGIN}
    there["VERL_USE_EXTERNAL_PLUGINS"] = "none"
    done = subprocess.run([*command, *words], env=there, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"trainer_mode: {TRAINER}" in done.stdout
    assert "lambda_critic: 1.0" in done.stdout


def test_a_word_that_verl_does_not_have_needs_its_plus() -> None:
    from hydra import compose, initialize_config_module
    from hydra.errors import ConfigCompositionException

    closed = pytest.raises(ConfigCompositionException)
    with initialize_config_module("verl.trainer.config", version_base=None), closed:
        compose("ppo_trainer", overrides=["algorithm.vcppo.lambda_actor=0.9"])
