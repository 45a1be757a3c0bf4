"""Settings of another kind of a section cannot be set, and no record or address knows that kinds are objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vcppo.errors import ConfigError
from vcppo.settings.kinds import KINDS, layout, other_kind, recorded_names
from vcppo.settings.loading import (
    Layer,
    build_settings,
    flatten,
    load,
    load_settings,
    nest,
    override,
    parse_assignment,
)
from vcppo.settings.notes import lines
from vcppo.settings.plugin import OUTSIDE
from vcppo.settings.renamed import with_hashed_names
from vcppo.settings.run import RunSettings
from vcppo.store.cache import Address, addresses
from vcppo.studies.study import parse_study

BEFORE = Path(__file__).parents[2] / "before"  # written when a section had the settings of all its kinds
KNOWN: dict[str, dict[str, Any]] = json.loads((BEFORE / "addresses.json").read_text())

# Defaults that have changed since then: what runs of then had is said to those of now.
SINCE = {"pretrain.patience": 20, "pretrain.max_steps": 300, "pretrain.held_out_prompts": "shared"}

# What else a kind needs to make a run.
NEEDS = {
    "task.name=maths": ["model.path=m"],
    "policy.loss=dpo": ["advantage.estimator=none", "rollout.samples_per_prompt=8"],
    "advantage.estimator=none": ["policy.loss=dpo", "rollout.samples_per_prompt=8"],
    "advantage.estimator=grpo": ["rollout.samples_per_prompt=8"],
    "advantage.estimator=rloo": ["rollout.samples_per_prompt=8"],
    "critic.init=saved": ["critic.path=there"],
    **{f"early_stop.deviation={word}": ["policy.loss=unclipped"] for word in ("tokens", "sequences")},
    "early_stop.deviation=high-entropy-tokens": ["policy.loss=unclipped"],
}


def of_kind(section: str, word: str) -> list[str]:
    said = f"{KINDS[section].name}={word.replace(OUTSIDE, 'examples.plugin_task.reversing:Reversing')}"
    return [said, *NEEDS.get(said, [])]


def others() -> Iterator[tuple[str, str, str]]:
    """(section, one of its kinds, a setting of another)."""
    for section, kinds in KINDS.items():
        for word in kinds.models:
            for name, setting in layout().items():
                if name.startswith(f"{section}.") and setting.kinds and word not in setting.kinds:
                    yield section, word, name


def text(value: object) -> str:
    return "none" if value is None else json.dumps(value)


@pytest.mark.parametrize("section", KINDS)
def test_every_kind_makes_a_run_and_its_own_settings_are_taken(section: str) -> None:
    kinds = KINDS[section]
    for word, model in kinds.models.items():
        settings = load_settings(assignments=of_kind(section, word))
        assert type(getattr(settings, section)) is model
        assert getattr(getattr(settings, section), kinds.by) == word


@pytest.mark.parametrize(("section", "word", "name"), list(others()))
def test_what_is_of_another_kind_is_refused_with_both_kinds_named(section: str, word: str, name: str) -> None:
    given, setting, by = of_kind(section, word), layout()[name], KINDS[section].name
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=[*given, f"{name}={text(setting.default)}"])
    said = str(caught.value)
    assert said.startswith(f"{name} = {setting.default!r} (from --set): it would be ignored, for {by} = {word} ")
    assert f"does not read it; {by} = " in said
    owner = load_settings(assignments=of_kind(section, setting.kinds[0]))
    assert other_kind(owner, name) is None


def of_then(said: list[str]) -> RunSettings:
    """A run with the defaults of then."""
    given = nest(dict(map(parse_assignment, said)), "--set")
    return build_settings([Layer("defaults", nest(SINCE, "defaults"), shared=True), Layer("--set", given)])


@pytest.mark.parametrize("name", KNOWN)
def test_a_record_of_before_is_the_same_run(name: str) -> None:
    """It has the settings of all kinds; those of other kinds are left out as it is read."""
    file = BEFORE / "settings" / f"{name}.json"
    settings, known = load_settings(file), KNOWN[name]
    assert settings == of_then(known["said"])
    assert settings.digest() == known["digest"]
    found = {stage: address.key for stage, address in addresses(settings).items()}
    elsewhere = {stage for stage in found if found[stage] != known["addresses"][stage]}
    by_rule = "value-pretraining" in found and settings.pretrain.steps == "converge"
    assert found.keys() == known["addresses"].keys()
    assert elsewhere == ({"rl", "evaluation"} if by_rule else set())  # `converge` takes another critic now
    assert with_hashed_names(settings.model_dump(mode="json")) == json.loads(file.read_text())


def test_a_run_of_now_is_no_run_of_before() -> None:
    """Held-out responses have prompts of their own, and patience is longer."""
    now = {stage: address.key for stage, address in addresses(RunSettings()).items()}
    before = KNOWN["default"]["addresses"]
    assert {stage for stage in now if now[stage] == before[stage]} == {"cold-start", "reward-model"}
    assert RunSettings().digest() != KNOWN["default"]["digest"]


@pytest.mark.parametrize(("said", "in_hash"), [(20, 2), (25, "25 updates")])
def test_patience_is_hashed_as_it_was_counted(said: int, in_hash: object) -> None:
    record = load_settings(assignments=[f"pretrain.patience={said}"]).model_dump(mode="json")
    assert with_hashed_names(record)["pretrain"]["patience"] == in_hash


def test_a_whole_record_is_valid_by_itself() -> None:
    for name in KNOWN:
        file = BEFORE / "settings" / f"{name}.json"
        assert RunSettings.model_validate_json(file.read_text()) == load_settings(file)


def test_a_stage_of_before_is_found_by_the_settings_of_its_run() -> None:
    stage = json.loads((BEFORE / "stage.json").read_text())
    found = addresses(load_settings(BEFORE / "settings" / "tiny.json"))["rl"]
    assert (found.settings, found.parents, found.key) == (stage["settings"], stage["parents"], stage["address"])
    assert Address(stage["stage"], stage["settings"], stage["parents"]).key == stage["address"]


def test_a_record_names_every_setting_whatever_its_kinds() -> None:
    for said in ([], ["engine.kind=vllm"], ["method=dpo"], ["method=espo"], ["method=rto"]):
        record = load_settings(assignments=said).model_dump(mode="json")
        assert set(flatten(record)) == recorded_names()


def test_settings_of_a_later_kind_are_in_its_own_records_alone() -> None:
    """So that runs of before keep their digests and addresses."""
    settings = load_settings(assignments=["task.name=labels", "task.lines=7"])
    record = settings.model_dump(mode="json")
    of_kind = {name for name, setting in layout().items() if "labels" in setting.kinds}
    assert set(flatten(record)) == recorded_names() | of_kind
    assert "task.lines" in of_kind - recorded_names()
    assert RunSettings.model_validate(record) == settings
    back = override(settings, {"task.name": "digits"})
    assert back.digest() == RunSettings().digest()


def test_what_a_shared_layer_says_of_another_kind_is_left_out_and_must_be_valid() -> None:
    shared = Layer("base", nest({"engine.max_sequences": 7, "policy.learning_rate": 0.5}, "base"), shared=True)
    vllm = Layer("arm", nest({"engine.kind": "vllm"}, "arm"))
    plain = load_settings(assignments=["policy.learning_rate=0.5"])
    assert dict(build_settings([shared])) == dict(plain)
    assert flatten(build_settings([shared, vllm]).model_dump(mode="json"))["engine.max_sequences"] == 7
    wrong = Layer("base", nest({"engine.max_sequences": 0}, "base"), shared=True)
    with pytest.raises(ConfigError, match=r"^engine.max_sequences = 0 \(from base\): input should be greater than or"):
        build_settings([wrong])


def test_what_a_file_says_of_a_kind_that_a_flag_changes_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[engine]\nkind = 'vllm'\nmax_sequences = 7\n")
    found = load(file, ["engine.kind=torch"])
    assert dict(found.settings) == dict(RunSettings())
    assert lines(found.notes) == [
        f"engine.max_sequences (from {file}): not used here, for engine.kind = torch does not read it; engine.kind = "
        "vllm does"
    ]


def test_a_kind_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^engine.kind = 'tpu' \(from --set\): input should be 'torch' or 'vllm'$"):
        load_settings(assignments=["engine.kind=tpu"])
    with pytest.raises(ConfigError, match=r"^engine.kinds \(from --set\): no such setting; did you mean engine.kind\?"):
        load_settings(assignments=["engine.kinds=tpu"])
    file = tmp_path / "mine.toml"
    file.write_text("[engine]\nkind = 'vllm'\nmax_sequence = 7\n")
    with pytest.raises(ConfigError, match=r"no such setting; did you mean engine.max_sequences\?"):
        load_settings(file)


def test_what_wset_values_of_another_kind_stays_in_the_record_alone() -> None:
    """A record, and addresses made of it, tell such a run from one of which nothing was said, as they always have."""
    vllm = override(RunSettings(), {"engine.kind": "vllm", "engine.max_sequences": 7})
    torch = override(vllm, {"engine.kind": "torch"})
    assert torch.engine == RunSettings().engine
    assert torch.model_dump(mode="json")["engine"]["max_sequences"] == 7
    assert torch.digest() != RunSettings().digest()
    assert override(torch, {"engine.kind": "vllm"}) == vllm
    assert override(torch, {"seed": 3}).model_dump(mode="json")["engine"]["max_sequences"] == 7


def test_a_method_without_what_it_sets_is_the_run_it_was() -> None:
    """As the arm `grpo` of the study `components`: the penalty's weight is the method's still."""
    base = Layer("base", {"method": "grpo", **nest(SINCE, "base")}, shared=True)
    arm = Layer("arm", nest({"kl.placement": "none"}, "arm"))
    settings = build_settings([base, arm])
    assert settings.model_dump(mode="json")["kl"] == {"placement": "none", "coefficient": 0.04, "estimator": "k3"}
    assert settings.digest() == KNOWN["grpo-without-kl"]["digest"]


def test_an_object_of_another_kind_has_no_such_setting() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RunSettings.model_validate({"engine": {"kind": "torch", "max_sequences": 7}})


def test_arms_of_other_kinds_share_a_base() -> None:
    arms = [{"name": "a"}, {"name": "b", "set": {"engine.kind": "vllm"}}]
    tree = {"name": "s", "title": "t", "seeds": 1, "base": {"engine.max_sequences": 7}, "arms": arms}
    torch, vllm = parse_study(tree, "s.toml").cells()
    assert torch.settings.engine == RunSettings().engine
    assert flatten(vllm.settings.model_dump(mode="json"))["engine.max_sequences"] == 7
    with pytest.raises(ConfigError, match=r"engine.max_sequences \(from study s, \[base\]\): every run would ignore"):
        parse_study({**tree, "arms": [{"name": "a"}, {"name": "b", "set": {"seed": 1}}][:1]}, "s.toml")
