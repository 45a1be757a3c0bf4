"""A stage's address knows all that its result depends on, and nothing else."""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny import new_policy, tiny

from vcppo.errors import CheckpointError
from vcppo.models.checkpoints import save_model
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses, is_complete, unfinished
from vcppo.store.pretrained_critics import critic_folder
from vcppo.system.files import read_json, whole_folder, write_json
from vcppo.tasks import make_task

ALL = ["cold-start", "reward-model", "answers", "value-pretraining", "rl", "evaluation"]


def keys(*assignments: str) -> dict[str, str]:
    return {stage: address.key for stage, address in addresses(tiny(*assignments)).items()}


@pytest.mark.parametrize(
    ("assignments", "changed"),
    [
        (["arm=other"], []),
        (["gae.lambda_actor=0.5"], ["rl", "evaluation"]),
        (["gae.lambda_critic=0.5"], ["rl", "evaluation"]),
        (["pretrain.steps=converge"], ["rl", "evaluation"]),
        (["pretrain.steps=8"], ["rl", "evaluation"]),
        (["pretrain.learning_rate=0.1"], ["value-pretraining", "rl", "evaluation"]),
        (["pretrain.pool=49"], ["answers", "value-pretraining", "rl", "evaluation"]),
        (["pretrain.held_out_prompts=shared"], ["answers", "value-pretraining", "rl", "evaluation"]),
        (["pretrain.gae_lambda=0.95"], ["value-pretraining", "rl", "evaluation"]),
        (["pretrain.max_steps=20"], ["value-pretraining", "rl", "evaluation"]),
        (["gae.gamma=0.9"], ["value-pretraining", "rl", "evaluation"]),
        (["critic.aggregation=sequence-mean"], ["value-pretraining", "rl", "evaluation"]),
        (["seed=1"], ["answers", "value-pretraining", "rl", "evaluation"]),
        (["evaluation.seed=1"], ["rl", "evaluation"]),
        (["evaluation.responses_at_once=3"], []),
        (["policy.learning_rate=0.1"], ["rl", "evaluation"]),
        (["reward_model.steps=7"], ["reward-model", "value-pretraining", "rl", "evaluation"]),
        (["rollout.temperature=0.9"], ALL[1:]),
        (["rollout.top_p=0.9"], ALL[1:]),
        (["rollout.max_tokens=20"], ALL[1:]),
        (["rollout.prompts=14"], ["rl", "evaluation"]),
        (["reward.wrong=0"], ALL[2:]),
        (["reward.clip=0.5"], ["value-pretraining", "rl", "evaluation"]),
        (["select.drop_truncated=true"], ["value-pretraining", "rl", "evaluation"]),
        (["gae.bootstrap_truncated=true"], ["value-pretraining", "rl", "evaluation"]),
        (["token_reward.kind=rto"], ["value-pretraining", "rl", "evaluation"]),
        (["base_seed=1"], ALL),
        (["task.stop_hazard=0.1"], ALL),
        (["model.layers=2"], ALL),
        (["micro_batch_tokens=100"], [s for s in ALL if s != "answers"] + ["answers"]),
    ],
)
def test_a_setting_changes_the_stages_that_it_matters_to(assignments: list[str], changed: list[str]) -> None:
    before, after = keys(), keys(*assignments)
    assert [stage for stage in ALL if before[stage] != after[stage]] == sorted(changed, key=ALL.index)


def test_a_run_has_the_stages_that_its_settings_need() -> None:
    assert list(keys()) == ALL
    assert list(keys("pretrain.steps=0")) == ["cold-start", "reward-model", "rl", "evaluation"]
    assert list(keys("critic.init=policy")) == [s for s in ALL if s != "reward-model"]
    assert list(keys("critic.init=exact")) == ["cold-start", "rl", "evaluation"]
    grpo = ("advantage.estimator=grpo", "rollout.samples_per_prompt=2")
    assert list(keys(*grpo)) == ["cold-start", "rl", "evaluation"]


@pytest.mark.parametrize("other", ["engine.dtype=bfloat16", "engine.max_length=64"])
def test_what_an_engine_computes_with_is_in_the_address_of_all_that_samples(other: str) -> None:
    before, after = keys("engine.kind=vllm"), keys("engine.kind=vllm", other)
    assert [stage for stage in before if before[stage] != after[stage]] == ALL[1:]
    assert keys("engine.kind=vllm", "engine.dtype=auto", "engine.sleep=false") == before


def test_a_number_of_steps_has_no_rule_of_stopping_in_its_address() -> None:
    settings = tiny()  # 4 steps
    other = settings.model_copy(update={"pretrain": settings.pretrain.model_copy(update={"patience": 500})})
    assert addresses(other)["rl"].key == addresses(settings)["rl"].key
    converging = [
        keys("pretrain.steps=converge", *more)["rl"]
        for more in ((), ("pretrain.patience=50",), ("pretrain.min_delta=0.1",))
    ]
    assert len({*converging, keys()["rl"]}) == 4


@pytest.mark.parametrize("name", ["layers", "hidden_size", "intermediate_size", "heads"])
def test_a_new_critics_size_matters_from_pretraining_on(name: str) -> None:
    plain, sized = keys("critic.init=new"), keys("critic.init=new", f"critic.{name}=8")
    assert list(plain) == [stage for stage in ALL if stage != "reward-model"]
    assert [stage for stage in plain if plain[stage] != sized[stage]] == ["value-pretraining", "rl", "evaluation"]
    assert keys("critic.init=policy")["answers"] == plain["answers"]


def test_fresh_rollouts_need_no_pool() -> None:
    assert addresses(tiny("pretrain.fresh_rollouts=true"))["answers"].settings["pool"] == [0, 32]
    assert addresses(tiny())["answers"].settings["pool"] == [48, 32]


def test_a_mean_score_needs_responses_though_nothing_is_pretrained() -> None:
    mean_score = ("critic.init=policy", "critic.initial_value=mean-score")
    without = (*mean_score, "pretrain.steps=0")
    assert list(keys(*without)) == ["cold-start", "answers", "rl", "evaluation"]
    found = addresses(tiny(*without))
    assert found["answers"].settings["pool"] == [0, 32]
    assert found["rl"].parents["answers"] == found["answers"].key
    pretrained = addresses(tiny(*mean_score))
    assert pretrained["answers"].settings["pool"] == [48, 32]
    assert "answers" not in pretrained["rl"].parents  # it comes by way of value pretraining
    fresh = (*mean_score, "pretrain.fresh_rollouts=true")
    assert keys(*fresh)["answers"] != found["answers"].key  # held-out prompts are few of many there
    assert keys(*fresh, "pretrain.held_out_prompts=shared")["answers"] == found["answers"].key
    assert keys(*without)["rl"] != keys(*without, "pretrain.held_out=33")["rl"]
    settings = tiny("pretrain.steps=0")  # the critic is the reward model, whatever a study's base says of fresh heads
    said = settings.model_copy(update={"critic": settings.critic.model_copy(update={"initial_value": "mean-score"})})
    assert list(addresses(said)) == ["cold-start", "reward-model", "rl", "evaluation"]


def test_a_stage_is_complete_when_it_says_so(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path, addresses(tiny())["rl"])
    assert folder.result is None
    folder.describe()
    (folder.path / "state.pt").write_bytes(b"x")
    folder.finish({"steps": 4.0}, 1.5)
    assert folder.result == {"steps": 4.0}
    assert not (folder.path / "state.pt").exists()
    assert read_json(folder.path / "done.json")["wall_s"] == 1.5
    told = read_json(folder.path / "stage.json")
    assert told["address"] == folder.path.name == addresses(tiny())["rl"].key
    assert told["parents"]["cold-start"] == keys()["cold-start"]
    assert told["provenance"]["versions"]["torch"]


def test_files_and_folders_are_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "policy"
    with whole_folder(target) as folder:
        (folder / "a").write_text("old")
        assert not target.exists()

    def fail_in_the_middle() -> None:
        with whole_folder(target) as folder:
            (folder / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert (target / "a").read_text() == "old"
    with whole_folder(target) as folder:
        (folder / "b").write_text("new")
    assert [file.name for file in target.iterdir()] == ["b"]
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_broken_record_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"done.json: cannot be read"):
        read_json(tmp_path / "done.json")


HOLD = """
import pathlib, sys, time
from vcppo.store.cache import StageFolder, addresses, is_complete, unfinished
from vcppo.store.pretrained_critics import critic_folder
from vcppo.models.checkpoints import save_model
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings

with StageFolder(pathlib.Path(sys.argv[1]), addresses(RunSettings())["rl"]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_an_address_is_worked_on_by_one_process_and_let_go_of_by_a_dead_one(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        timer = threading.Timer(0.3, other.kill)
        timer.start()
        with StageFolder(tmp_path, addresses(RunSettings())["rl"]).lock():
            assert timer.finished.is_set()  # only the other's death let us in
        assert other.wait() == -signal.SIGKILL


def test_other_weights_at_the_same_path_are_another_address_and_the_same_elsewhere_are_not(tmp_path: Path) -> None:
    """Of `model.path`, and of `critic.path`: what is in a folder counts, not where it lies."""

    def keys_of(folder: Path) -> list[str]:
        of_model = addresses(tiny(f"model.path={folder}"))["cold-start"]
        of_critic = addresses(tiny("critic.init=saved", f"critic.path={folder}"))
        return [of_model.key, of_critic["value-pretraining"].key, of_critic["rl"].key]

    one, other = tmp_path / "one", tmp_path / "other"
    save_model(new_policy(), make_task(tiny().task).tokenizer(), one)
    shutil.copytree(one, other)
    before = keys_of(one)
    assert keys_of(other) == before
    save_model(new_policy(seed=1), make_task(tiny().task).tokenizer(), one)
    assert not set(keys_of(one)) & set(before)


@pytest.mark.parametrize("same", ["compute.packing=true", "compute.logit_cells=7", "model.trust_remote_code=true"])
def test_how_passes_are_computed_is_not_in_an_address(same: str) -> None:
    assert keys(same) == keys()


@pytest.mark.parametrize("other", ["compute.dtype=bfloat16", "lora.rank=2"])
def test_precision_and_adapters_are_in_every_address(other: str) -> None:
    given = "model.path=there"
    changed, plain = addresses(tiny(given, other)), addresses(tiny(given))
    assert all(changed[stage].key != plain[stage].key for stage in plain)


@pytest.mark.parametrize("other", ["compute.dtype=bfloat16", "lora.rank=2", "micro_batch_tokens=100"])
def test_how_later_stages_train_is_not_in_the_address_of_a_model_that_is_taken_as_it_is(other: str) -> None:
    """Its responses are the same, whoever is trained on them and how."""
    given = ("model.path=there", "cold_start.steps=0")
    plain, changed = keys(*given), keys(*given, other)
    same = {stage for stage in plain if changed[stage] == plain[stage]}
    assert same == {"cold-start", "answers"}
    trained = ("model.path=there", "cold_start.steps=1")
    assert keys(*trained)["answers"] != keys(*trained, other)["answers"]


def test_results_of_a_model_that_is_taken_as_it_is_are_where_they_were() -> None:
    """As they were addressed when training was part of it, at the defaults."""
    settings = load_settings(None, ["model.path=somebody/model", "cold_start.steps=0", "task.name=maths"])
    assert addresses(settings)["cold-start"].key == "c5164a9965dd"


def test_a_pretraining_that_ended_for_fewer_updates_is_not_complete_for_more(tmp_path: Path) -> None:
    """One folder serves many step counts: what it reported for one says nothing of another, nor of `converge`."""
    forty, more, converge = (tiny(f"pretrain.steps={steps}") for steps in ("4", "8", "converge"))
    folder = StageFolder(tmp_path, addresses(forty)["value-pretraining"])
    checkpoint = critic_folder(folder.path, 4)
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    folder.finish({"steps": 4.0}, 1.0)
    assert folder.result is not None
    assert [is_complete(folder, settings) for settings in (forty, more, converge)] == [True, False, False]


def test_a_pretraining_that_ended_early_for_another_cell_is_still_to_be_computed(tmp_path: Path) -> None:
    """A worker that is given a second cell of it would wait for the first one's."""
    few, many = tiny("pretrain.steps=2"), tiny("pretrain.steps=8")
    names = {stage: f"{stage}/{address.key}" for stage, address in addresses(few).items()}
    assert unfinished(tmp_path, few) == set(names.values())
    for stage in ("cold-start", "value-pretraining"):
        write_json(tmp_path / "cache" / names[stage] / "done.json", {"result": {}})
    state = critic_folder(tmp_path / "cache" / names["value-pretraining"], 2) / "state.pt"
    state.parent.mkdir()
    state.touch()
    assert unfinished(tmp_path, few) == {names[stage] for stage in ALL} - {
        names["cold-start"],
        names["value-pretraining"],
    }
    assert names["value-pretraining"] in unfinished(tmp_path, many)


def test_who_locks_a_stage_removes_what_a_crash_on_another_machine_left_there(tmp_path: Path) -> None:
    """But not from where others write without the lock: a study elsewhere may be noting a request."""
    folder = StageFolder(tmp_path, addresses(tiny())["value-pretraining"])
    state = folder.path / "critic-000001" / ".state.pt~pod-7c9d-x2~41~123.tmp"
    request = folder.path / "requests" / ".0123456789ab.json~login-node~41~123.tmp"
    for path in (state, request):
        path.parent.mkdir(parents=True)
        path.touch()
    with folder.lock():
        assert (state.exists(), request.exists()) == (False, True)
