"""task.name = package.module:Class: told apart from the words, its class found, its options judged, one line each."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vcppo.cli.main import main
from vcppo.errors import ConfigError
from vcppo.settings import plugin
from vcppo.settings.kinds import KINDS
from vcppo.settings.loading import flatten, load_settings, override
from vcppo.settings.plugin import OUTSIDE, PluginTaskSettings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses
from vcppo.studies.study import parse_study
from vcppo.system.fingerprints import fingerprint
from vcppo.tasks import make_task
from vcppo.tasks import plugin_address as plugin_address_module
from vcppo.tasks.base import Task
from vcppo.tasks.plugin_address import plugin_address

REVERSING = "examples.plugin_task.reversing:Reversing"
NAME = f"task.name={REVERSING}"
WORDS = ", ".join(f"'{word}'" for word in KINDS["task"].models)
READER = """
from vcppo.tasks.plugin import PluginTask
from vcppo.types import Judgement, Prompt, Verdict

class Reader(PluginTask):
    name, max_tokens = "reader", 8

    def __init__(self, options):
        self.options = options
        if options.get("bad"):
            raise ValueError("bad is no option")

    def training_problems(self):
        return [Prompt("a", "a?", "a")]

    def held_out_prompts(self, problems="report"):
        return [Prompt("b", "b?", "b")] if problems == "report" else []

    def judge(self, texts, prompts):
        return [Judgement(Verdict.WRONG) for _ in texts]
"""


def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{name}.py").write_text(text)
    return tmp_path / f"{name}.py"


def refusal(*assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=assignments)
    return str(caught.value)


def test_a_name_with_a_colon_is_a_class_from_outside() -> None:
    settings = load_settings(assignments=[NAME, "task.options.letters=3"])
    assert settings.task == PluginTaskSettings(name=REVERSING, options={"letters": 3})
    assert load_settings(assignments=[NAME, "task.options={letters = 3}"]) == settings
    assert KINDS["task"].word(REVERSING) == OUTSIDE
    assert make_task(settings.task).name == "reversing"


def test_options_of_several_layers_are_one_table(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[task]\nname = '{REVERSING}'\n[task.options]\nletters = 3\nstop_early = 0.25\n")
    settings = load_settings(file, ["task.options.letters=5"])
    assert settings.task == PluginTaskSettings(name=REVERSING, options={"letters": 5, "stop_early": 0.25})
    changed = override(settings, {"task.options.letters": 6})
    assert changed.task == PluginTaskSettings(name=REVERSING, options={"letters": 6, "stop_early": 0.25})
    assert changed.digest() != settings.digest()


def test_a_record_is_the_same_run_and_needs_no_plug_in_to_be_read(tmp_path: Path) -> None:
    settings = load_settings(assignments=[NAME, "task.options.letters=3"])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    assert load_settings(file) == settings
    assert load_settings(file).digest() == settings.digest()
    elsewhere = {**settings.model_dump(mode="json"), "task": {"name": "not.there:Task", "options": {"x": [1, {}]}}}
    file.write_text(json.dumps(elsewhere))
    read = load_settings(file)
    assert read.task == PluginTaskSettings(name="not.there:Task", options={"x": [1, {}]})
    with pytest.raises(ConfigError, match=r"^task.name = not.there:Task: importing not.there fails"):
        make_task(read.task)


def test_other_tasks_know_nothing_of_options() -> None:
    assert "options" not in RunSettings().model_dump(mode="json")["task"]
    assert refusal("task.options.letters=3") == (
        "task.options = {'letters': 3} (from --set): it would be ignored, for task.name = digits does not read it; "
        f"task.name = {OUTSIDE} does"
    )
    assert refusal(NAME, "task.chain_length=3").startswith(
        f"task.chain_length = 3 (from --set): it would be ignored, for task.name = {REVERSING} does not read it; "
    )


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["task.name=digts"], f"task.name = 'digts' (from --set): input should be {WORDS} or '{OUTSIDE}'"),
        (["task.name=a:b:c"], f"task.name = 'a:b:c' (from --set): expected a task of vcppo, or {OUTSIDE}"),
        (["task.name=digits:"], f"task.name = 'digits:' (from --set): expected a task of vcppo, or {OUTSIDE}"),
        (
            ["task.name=not_there.at_all:Task"],
            "task.name = not_there.at_all:Task: importing not_there.at_all fails (ModuleNotFoundError: No module named "
            "'not_there'); expected a module that is installed, or lies in a folder of PYTHONPATH",
        ),
        (["task.name=vcppo.errors:Task"], "task.name = vcppo.errors:Task: module vcppo.errors has no class Task"),
        (
            ["task.name=vcppo.seeding:rng_for"],
            "task.name = vcppo.seeding:rng_for: module vcppo.seeding has no class rng_for",
        ),
        (
            ["task.name=vcppo.tasks.plugin:PluginTask"],
            "task.name = vcppo.tasks.plugin:PluginTask: the class lacks held_out_prompts, judge, training_problems; "
            "expected the methods of vcppo.tasks.base.Task, of which vcppo.tasks.plugin.PluginTask has most",
        ),
        (
            [NAME, "task.options.letters=2", "task.options.stop=1"],
            "task.options.letters = 2 (from --set): input should be greater than or equal to 3; task.options.stop "
            f"(from --set): task.name = {REVERSING} has no such option, it has letters, stop_early",
        ),
        ([NAME, "task.options=3"], "task.options = 3 (from --set): input should be a valid dictionary"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(assignments: list[str], message: str) -> None:
    assert refusal(*assignments) == message
    words = [word for text in assignments for word in ("--set", text)]
    done = CliRunner().invoke(main, ["settings", *words])
    assert (done.exit_code, done.output.strip()) == (2, f"ConfigError: {message}")


def test_a_class_that_reads_needs_a_model_and_what_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, monkeypatch, "plugin_reader", READER)
    name = "plugin_reader:Reader"
    assert refusal(f"task.name={name}").startswith(f"model.path = none: task.name = {name} has no tokenizer of its own")
    read = load_settings(assignments=[f"task.name={name}", "model.path=m", "task.options={a = [1, {b = 2}]}"])
    assert isinstance(read.task, PluginTaskSettings)
    assert read.task.task.options == {"a": [1, {"b": 2}]}
    assert load_settings(assignments=[f"task.name={name}"], checkpoint="m").model.path == "m"
    assert load_settings(assignments=[NAME], checkpoint="m").model.path is None
    assert refusal(f"task.name={name}", "model.path=m", "evaluation.problems=search") == (
        f"evaluation.problems = search: task.name = {name} has none for it"
    )
    assert refusal(f"task.name={name}", "model.path=m", "task.options.bad=true") == (
        f'task.options = {{"bad": true}}: task.name = {name} refuses them (bad is no option)'
    )


def test_the_methods_that_a_class_must_have_are_those_of_the_protocol() -> None:
    own = {name for name, member in vars(Task).items() if callable(member) and not name.startswith("_")}
    assert set(plugin.METHODS) == own
    assert set(plugin.ATTRIBUTES) == set(Task.__annotations__)


def test_addresses_know_class_options_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = module(tmp_path, monkeypatch, "plugin_address_reader", READER)

    def address(name: str, **options: Any) -> dict[str, Any]:
        return plugin_address(PluginTaskSettings(name=name, options=options))

    before = address("plugin_address_reader:Reader", a=1)
    assert before["options"] == {"a": 1}
    assert address("plugin_address_reader:Reader", a=2) != before
    file.write_text(f"{READER}# changed\n")
    assert address("plugin_address_reader:Reader", a=1) != before
    assert address(REVERSING)["options"] == {"letters": 4, "stop_early": 0.5}, "defaults are written out"
    assert address(REVERSING) == address(REVERSING, letters=4)
    runs = [load_settings(assignments=[NAME, f"task.options.letters={n}"]) for n in (3, 4)]
    keys = [{stage: one.key for stage, one in addresses(run).items()} for run in runs]
    assert all(keys[0][stage] != keys[1][stage] for stage in keys[0])


def test_what_a_class_says_it_is_made_of_stands_for_its_source_and_not_for_a_heirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "\n    @classmethod\n    def fingerprint(cls, options):\n        return {'version': 7}\n"
    file = module(tmp_path, monkeypatch, "plugin_versioned", f"{READER}{said}\n\nclass Heir(Reader):\n    pass\n")
    address = plugin_address(PluginTaskSettings(name="plugin_versioned:Reader"))
    assert address["made_of"] == {"version": 7}
    heir = plugin_address(PluginTaskSettings(name="plugin_versioned:Heir"))["made_of"]
    assert heir.keys() == {"source", "version"}
    file.write_text(file.read_text() + "# changed\n")
    assert plugin_address(PluginTaskSettings(name="plugin_versioned:Reader")) == address
    assert plugin_address(PluginTaskSettings(name="plugin_versioned:Heir"))["made_of"] != heir


def test_a_class_in_a_package_is_made_of_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugin_package" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "plugin_package" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "task.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = PluginTaskSettings(name="plugin_package.inner.task:Reader")
    before = plugin_address(settings)
    (tmp_path / "plugin_package" / "rules.py").write_text("LIMIT = 3\n")
    plugin_address_module._digest_of_package.cache_clear()  # as in the next process
    assert plugin_address(settings) != before


def test_a_class_is_made_of_those_that_it_inherits_from_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a verifier that a class inherits could change, and its old rewards would be found again."""
    base = module(tmp_path, monkeypatch, "plugin_heir_base", READER)
    file = module(
        tmp_path, monkeypatch, "plugin_heir", "from plugin_heir_base import Reader\nclass Heir(Reader): ...\n"
    )
    settings = PluginTaskSettings(name="plugin_heir:Heir")
    before = plugin_address(settings)
    base.write_text(f"{READER}# changed\n")
    after = plugin_address(settings)
    assert after != before
    file.write_text(f"{file.read_text()}# changed\n")
    assert plugin_address(settings) not in (before, after)


def test_the_address_of_a_class_of_one_module_is_the_digest_of_that_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it has been, whatever vcppo and Python give it: results of before are found."""
    mixed = READER.replace("(PluginTask)", "(PluginTask, UserDict, Generic[T])").replace(
        "from vcppo.types", "from collections import UserDict\nfrom typing import Generic, TypeVar\nfrom vcppo.types"
    )
    file = module(tmp_path, monkeypatch, "plugin_alone", mixed.replace("class", "T = TypeVar('T')\n\nclass"))
    assert plugin_address(PluginTaskSettings(name="plugin_alone:Reader"))["made_of"] == {"source": fingerprint(file)}


def test_what_estimates_are_made_of_has_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, monkeypatch, "plugin_estimates", READER)
    reader = PluginTaskSettings(name="plugin_estimates:Reader")
    facts = (reader.prompt_tokens, reader.response_tokens, reader.slack_tokens, reader.steps_of_thought)
    assert facts == (512, 8, 0, 30)
    assert (reader.problems("report"), reader.problems("search")) == (1, 0)
    reversing = PluginTaskSettings(name=REVERSING, options={"letters": 3})
    assert (reversing.prompt_tokens, reversing.response_tokens, reversing.vocabulary) == (4, 6, 10)
    assert reversing.problems("report") == 5  # of 6^3 words every fiftieth


def test_a_study_goes_through_options() -> None:
    tree = {"name": "s", "title": "t", "seeds": 1, "base": {"task.name": REVERSING}}
    cells = parse_study({**tree, "grid": {"task.options.letters": [3, 4]}}, "s.toml").cells()
    assert [cell.swept for cell in cells] == [{"task.options.letters": 3}, {"task.options.letters": 4}]
    assert [flatten(cell.settings.model_dump(mode="json"))["task.options"]["letters"] for cell in cells] == [3, 4]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("plan", "--gpus", "1"), "value-pretraining"),
        (("train", "--dry-run"), "value-pretraining"),
        (("settings",), "task.options = {'letters': 3}"),
    ],
)
def test_commands_that_run_nothing_take_it(command: tuple[str, ...], said: str, tmp_path: Path) -> None:
    words = [*command, "--set", NAME, "--set", "task.options.letters=3"]
    done = CliRunner().invoke(main, words if command[0] != "train" else [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert said in done.output
