"""What the README names must exist: files, commands, studies, and the code that it shows."""

import re
import shlex
from pathlib import Path

import click
import pytest

from vcppo.cli import main
from vcppo.study import load_study

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
CONSOLE = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
COMMANDS = sorted({*filter(None, CONSOLE), *re.findall(r"`((?:vcppo|make) [^`]+)`", TEXT)})


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links
    assert not missing


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vcppo ")])
def test_every_vcppo_command_and_option_exists(command):
    words = shlex.split(command)[1:]
    found: click.Command = main
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in found.commands, f"no command {name}"
        found = found.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("study", sorted(set(re.findall(r"vcppo sweep ([a-z-]+)`", TEXT))))
def test_every_study_exists(study):
    assert load_study(study).name == study


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", "\n".join(COMMANDS)))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_the_code_it_shows_runs(code):
    names: dict[str, object] = {}
    exec(code, names)
    assert names["returns"].tolist() == [[1.0, 1.0, 1.0]]


def test_no_number_is_left_to_be_filled_in():
    assert not re.findall(r"\b(?:HEADLINE|MEASURED|REPRODUCED|FORCED|\w+_MINUTES|COST_[\w-]+)\b", TEXT)
