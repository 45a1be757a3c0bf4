"""recipes/: each loads, each is planned, and what stands in it of cost and of sources is so."""

import re
import tomllib
from pathlib import Path

import pytest

from vcppo.planning.memory_estimate import GIB
from vcppo.planning.plan import Gpus, make_plan
from vcppo.settings.loading import flatten, known_names, load_settings

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
PAPER = ROOT / "recipes" / "qwen2.5-32b-paper.toml"
MARKS = ("paper", "notes", "vapo", "derived", "UNKNOWN", "ours")
HEADER = re.compile(r"^# plan: (\d+) x (\d+) GiB: (.+)$", re.MULTILINE)
# What VAPO's section 5.1 and the paper's algorithm 1 and tables print, in our words.
PRINTED = {
    "policy.learning_rate": 1e-6,
    "critic.learning_rate": 2e-6,
    "rollout.prompts": 8192,
    "rollout.samples_per_prompt": 1,
    "policy.minibatches": 8192 // 512,
    "policy.clip_low": 0.2,
    "policy.clip_high": 0.2,
    "gae.gamma": 1.0,
    "gae.lambda_actor": 0.95,
    "gae.lambda_critic": 1.0,
    "critic.init": "reward-model",
    "critic.value_loss": "mse",
    "policy.aggregation": "sequence-mean",
    "reward.correct": 1.0,
    "reward.wrong": -1.0,
    "evaluation.samples": 32,
    "evaluation.top_p": 0.7,
    "task.maths.max_tokens": 16384,
    "model.path": "Qwen/Qwen2.5-32B",
}
UNKNOWN = (  # settings of the published runs that nobody has published
    "task.maths.train", "cold_start.steps", "rollout.temperature", "advantage.whiten", "kl.placement",
    "policy.epochs", "policy.warmup_steps", "critic.warmup_steps", "reward_model.learning_rate", "policy.adam_beta2",
)  # fmt: skip


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_are_recipes_for_a_small_model_for_one_gpu_for_a_node_and_of_the_paper() -> None:
    assert [path.stem for path in RECIPES] == [
        "qwen2.5-1.5b-1gpu", "qwen2.5-32b-paper", "qwen2.5-7b-8gpu", "smollm2-135m",
    ]  # fmt: skip


def test_a_recipe_loads_and_keeps_what_it_says(recipe: Path) -> None:
    told = flatten(tomllib.loads(recipe.read_text(encoding="utf-8")))
    found = flatten(load_settings(recipe).model_dump(mode="json"))
    assert {name: found[name] for name in told} == told


def test_a_recipe_fits_on_the_machine_it_names_and_costs_what_it_says(recipe: Path) -> None:
    headers = HEADER.findall(recipe.read_text(encoding="utf-8"))
    assert len(headers) == 1
    gpus, memory, said = headers[0]
    found = make_plan(load_settings(recipe), Gpus.of(int(gpus), float(memory)))
    assert found.fits
    hours = int(gpus) * sum(time.generate_h + time.pass_h for time in found.times)
    full = found.fullest
    assert said == (
        f"{full.needs / GIB:.0f} GiB at most ({full.stage}, {full.name}), "
        f"{hours:,.0f} GPU hours at assumed rates if every response were as long as it may be"
    )


def test_a_recipe_does_not_fit_on_half_the_memory_of_its_fullest_phase(recipe: Path) -> None:
    gpus = int(HEADER.findall(recipe.read_text(encoding="utf-8"))[0][0])
    settings = load_settings(recipe)
    half = make_plan(settings, Gpus.of(gpus, 80.0)).fullest.needs / 2 / GIB
    assert not make_plan(settings, Gpus.of(gpus, half)).fits


def test_the_commands_above_a_recipe_name_it(recipe: Path) -> None:
    lines = re.findall(r"^#     (.+)$", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all(f"recipes/{recipe.name}" in line for line in lines)
    assert any(line.startswith("vcppo plan") for line in lines)
    assert any("train --config" in line for line in lines)


def marked() -> dict[str, str]:
    """Each setting of the paper's recipe with the mark behind it; a line without one is an empty mark."""
    found, section = {}, ""
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[([a-z_.]+)\]", line):
            section = heading[1] + "."
        elif line and not line.startswith("#"):
            mark = re.search(r"# \[([A-Za-z]+)\]", line)
            found[section + line.split(" =")[0].strip()] = mark[1] if mark else ""
    return found


def test_every_setting_of_the_papers_recipe_says_where_it_is_from() -> None:
    found = marked()
    assert found.pop("method") == ""
    assert set(found) <= set(known_names())
    assert {name: mark for name, mark in found.items() if mark not in MARKS} == {}
    assert set(MARKS) == set(found.values())


def test_what_is_printed_is_as_it_is_printed_and_what_is_unknown_is_marked() -> None:
    settings, found = flatten(load_settings(PAPER).model_dump(mode="json")), marked()
    assert {name: settings[name] for name in PRINTED} == PRINTED
    assert {name: found[name] for name in PRINTED if found[name] in ("UNKNOWN", "ours")} == {}
    assert {name: found[name] for name in UNKNOWN} == dict.fromkeys(UNKNOWN, "UNKNOWN")
