"""What `vcppo evaluate` cannot do is one line; which checkpoint it was; how it gets on."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import arithmetic
import pytest
from click.testing import CliRunner
from evaluations import TINY, a_policy, contents, folder, invoke, refused
from fake_responses import sampled
from rich.console import Console
from tiny import tiny
from transformers import GPT2Config, GPT2LMHeadModel

from vcppo.cli.main import main
from vcppo.errors import CheckpointError
from vcppo.evaluation.progress import EvaluationView
from vcppo.models.checkpoints import save_model
from vcppo.rl.sampler import Sampler
from vcppo.system.fingerprints import find_checkpoint, fingerprint_of_checkpoint
from vcppo.system.processes import locked
from vcppo.tasks import make_task
from vcppo.types import Prompt, Rollout

NAMES = ("somebody/tiny", "somebody/else")
BOTH = """
import json, sys
from vcppo.cli.main import main

codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as exit:
        codes.append(exit.code)
print(codes)
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ---- what is wrong is one line ----


def test_a_broken_policy(checkpoint: Path, tmp_path: Path) -> None:
    broken = a_policy(tmp_path / "policy")
    (broken / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes()[:100])
    said = refused(broken, "--out", tmp_path / "out", *TINY)
    assert said.startswith(f"CheckpointError: {broken}: expected a causal language model")


def test_no_such_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("nowhere", "./no/where", "runs/cache/nowhere", str(tmp_path)):
        assert refused(checkpoint, name, *TINY) == (
            f"CheckpointError: {name}: no config.json there, expected a folder in transformers format\n"
        )


def test_no_tokenizer_is_told_before_the_first_checkpoint_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    bare = a_policy(tmp_path / "policy")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    said = refused(checkpoint, bare, "--out", tmp_path / "out", *TINY)
    assert said.startswith(f"CheckpointError: {bare}: no tokenizer there")
    assert not (tmp_path / "out").exists()


def test_a_family_without_a_decoder_of_its_own_is_asked_all_the_same_and_noted(tmp_path: Path) -> None:
    tokenizer = make_task(tiny().task).tokenizer()
    ends = {"bos_token_id": 1, "eos_token_id": 1}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, **ends))
    save_model(gpt2, tokenizer, tmp_path / "policy")
    done = invoke(tmp_path / "policy", "--out", tmp_path / "out", *TINY)
    assert done.exit_code == 0
    assert done.output.count("note: gpt2: its responses are written by transformers' forward passes") == 1
    assert len(list((tmp_path / "out").rglob("report.json"))) == 1


def test_a_tokenizer_of_another_policy(checkpoint: Path, tmp_path: Path) -> None:
    small = a_policy(tmp_path / "policy")
    make_task(tiny("task.chain_length=30").task).tokenizer().save_pretrained(small)
    said = refused(small, "--out", tmp_path / "out", *TINY, "--set", "task.chain_length=30")
    assert "its tokenizer writes token 43, its policy knows 21 tokens" in said


def test_a_report_that_cannot_be_written_is_told_before_anything_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = tmp_path / "file" / "report.json"
    said = refused(checkpoint, "--out", tmp_path / "out", "--json", report, *TINY)
    assert said == f"ConfigError: --json {report}: cannot be written (File exists)\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluations").write_text("a file where the folder should be")
    said = refused(checkpoint, "--out", tmp_path, *TINY)
    assert said.startswith(f"CheckpointError: {tmp_path / 'evaluations'}")
    assert "cannot be written" in said


@pytest.mark.parametrize("name", ["provenance.json", "00002.json", "report.json"])
def test_a_disk_that_fills_up_is_told_and_gone_on_from(
    checkpoint: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    said = refused(checkpoint, "--samples", "3", "--out", tmp_path, *TINY)
    assert said.startswith("DiskError: ")
    assert f"{name}: cannot be written (No space left on device; " in said
    monkeypatch.undo()
    assert invoke(checkpoint, "--samples", "3", "--out", tmp_path, *TINY).exit_code == 0
    found = {place: content for place, content in contents(folder(tmp_path)).items() if "/." not in f"/{place}"}
    assert found == contents(folder(out))


def test_no_responses(checkpoint: Path, tmp_path: Path) -> None:
    assert invoke(checkpoint, "--samples", "0", "--out", tmp_path, *TINY).exit_code == 2
    assert "evaluation.samples = 0 (from --set)" in refused(checkpoint, "--set", "evaluation.samples=0")


def test_somebody_else_at_it(checkpoint: Path, out: Path) -> None:
    with locked(folder(out), "this evaluation"):
        said = refused(checkpoint, "--samples", "3", "--out", out, *TINY)
    assert f"process {os.getpid()} is running this evaluation; wait for it, or stop it" in said


# ---- which checkpoint it is ----


def test_a_copy_is_the_same_policy(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "README.md").write_text("a copy")
    os.utime(copy / "config.json", (0, 0))
    assert fingerprint_of_checkpoint(copy) == fingerprint_of_checkpoint(checkpoint)


def test_any_change_of_a_tensor_a_setting_or_the_tokenizer_is_another_policy(checkpoint: Path, tmp_path: Path) -> None:
    seen = {fingerprint_of_checkpoint(checkpoint)}
    weights = (checkpoint / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")
    tensors = json.loads(weights[8:header])
    tensors.pop("__metadata__", None)
    assert len(tensors) > 5
    for start, _ in (entry["data_offsets"] for entry in tensors.values()):
        copy = shutil.copytree(checkpoint, tmp_path / f"at{start}")
        at = header + start
        (copy / "model.safetensors").write_bytes(weights[:at] + bytes([weights[at] ^ 1]) + weights[at + 1 :])
        seen.add(fingerprint_of_checkpoint(copy))
    for name in ("config.json", "tokenizer.json"):
        copy = shutil.copytree(checkpoint, tmp_path / name)
        (copy / name).write_bytes((copy / name).read_bytes() + b" ")
        seen.add(fingerprint_of_checkpoint(copy))
    for change in (lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b"\x02" + bytes(7) + b"[]"):
        copy = shutil.copytree(checkpoint, tmp_path / f"cut{len(seen)}")
        (copy / "model.safetensors").write_bytes(change(weights))
        seen.add(fingerprint_of_checkpoint(copy))
    assert len(seen) == 1 + len(tensors) + 2 + 4


def test_a_name_on_the_hub_is_the_commit_that_it_stands_for(checkpoint: Path, tmp_path: Path) -> None:
    """From the hub's cache, laid out as its client lays it out, in a process that may not ask the hub."""
    repository = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    arguments = json.dumps([["evaluate", name, "--out", str(tmp_path / "out"), *TINY] for name in NAMES])
    command = [sys.executable, "-c", BOTH, arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 2]", done.stderr
    told = json.loads((folder(tmp_path / "out") / "report.json").read_text())
    assert told["checkpoint"] == {"name": NAMES[0], "fingerprint": COMMIT}
    assert done.stderr.startswith(f"CheckpointError: {NAMES[1]}: no such folder, and nothing of this name from the hub")
    assert done.stderr.count("\n") == 1


def test_a_name_that_no_hub_could_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="some body/tiny: no such folder, and nothing of this name from the hub"):
        find_checkpoint("some body/tiny")


# ---- getting on ----


def test_progress_is_told_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with EvaluationView("a policy", 5, clock=lambda: now[0]) as view:
        first, second, third, fourth, fifth = sampled("rr", "ww", "rw", "wu", "rr")
        view(first, False)
        for seconds, problem in [(10.0, second), (31.0, third), (40.0, fourth), (62.0, fifth)]:
            now[0] = seconds
            view(problem, True)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "a policy: 3 of 5 problems, accuracy 0.500, 2 tokens/s",  # 40 + 30 of them in 31 s
        "a policy: 5 of 5 problems, accuracy 0.500, 2 tokens/s",
    ]
    assert (view.done, view.before) == (5, 1)


def test_a_terminal_has_a_bar_with_problems_accuracy_and_speed() -> None:
    now, screen = [0.0], io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with EvaluationView("a [policy]", 2, console, clock=lambda: now[0]) as view:
        now[0] = 2.0
        view(sampled("rw")[0], True)
        view.notify("a line")
    told = screen.getvalue()
    assert "a line\n" in told
    assert "a [policy]" in told
    assert "1/2" in told
    assert "accuracy 0.500, 15 tokens/s" in told


def test_the_groups_of_a_command_are_those_of_its_setting(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, roll_out = [], Sampler.roll_out

    def counted(sampler: Sampler, prompts: Sequence[Prompt], **rest: int) -> list[Rollout]:
        asked.append(len(prompts))
        return roll_out(sampler, prompts, **rest)

    monkeypatch.setattr(Sampler, "roll_out", counted)
    flags = ["--samples", "4", "--out", tmp_path, *TINY, "--set", "evaluation.responses_at_once=13"]
    assert invoke(checkpoint, *flags).exit_code == 0
    assert asked == [12, 12, 12, 4]


def test_a_maths_task_needs_no_model_but_the_checkpoint(tmp_path: Path) -> None:
    """AIME asked of a folder: nothing else to be said than the task."""
    model = arithmetic.make_model_folder(tmp_path / "model")
    held_out = arithmetic.make_problems(tmp_path / "sums.jsonl", 3, terms=2)
    training = arithmetic.make_problems(tmp_path / "train.jsonl", 9, seed=1, terms=2)
    maths = (
        "task.name=maths",
        "task.maths.max_tokens=6",
        f"task.maths.evaluate={held_out}",
        f"task.maths.train={training}",
    )
    command = ["evaluate", str(model), "--samples", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*command, *(word for text in maths for word in ("--set", text))])
    assert done.exit_code == 0, done.output
    assert "3 problems, 2 responses each, temperature 1, top-p 0.7" in done.output


# ---- a policy that cannot be asked this ----


def test_a_model_that_reads_text_is_not_asked_the_digits_task(tmp_path: Path) -> None:
    """It would get 0.000, and nobody a hint."""
    model = arithmetic.make_model_folder(tmp_path / "model")
    for more in ((), ("--dry-run",)):
        done = invoke(model, "--out", tmp_path / "out", *more)
        assert done.exit_code == 2
        assert done.output == (
            f"ConfigError: task.name = digits: the tokenizer of {model} has no <eos>, so it is no policy of this task "
            "and would get every answer wrong; a model that reads text is asked mathematics, expected "
            "task.name = maths (docs/maths.md)\n"
        )
    assert not (tmp_path / "out").exists()


def test_a_policy_of_the_digits_task_is_not_asked_mathematics(checkpoint: Path, tmp_path: Path) -> None:
    problems = arithmetic.make_problems(tmp_path / "sums.jsonl", 3, seed=1, terms=2)
    words = ("--set", "task.name=maths", "--set", f"task.maths.evaluate={problems}")
    done = invoke(checkpoint, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert done.output.startswith(f"ConfigError: task.name = maths: the tokenizer of {checkpoint} makes '<pad>' of ")
    assert "task.name = digits" in done.output


def test_a_policy_made_for_shorter_chains_is_not_asked_for_longer_ones(checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.output == (
        f"ConfigError: task.chain_length = 30: the tokenizer of {checkpoint} has words for 7 lines, its policy was "
        "made for 3; expected task.chain_length = 3\n"
    )


def test_one_of_several_that_cannot_be_asked_is_told_before_the_first_is(checkpoint: Path, tmp_path: Path) -> None:
    model = arithmetic.make_model_folder(tmp_path / "model")
    done = invoke(checkpoint, model, "--out", tmp_path / "out", *TINY)
    assert (done.exit_code, "task.name = digits" in done.output) == (2, True)
    assert not (tmp_path / "out").exists()
