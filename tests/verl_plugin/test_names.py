"""Our settings' names beside verl's, and which studies verl can run."""

from pathlib import Path
from typing import Any

import pytest

from vcppo.errors import ConfigError
from vcppo.settings.loading import known_names, override
from vcppo.settings.run import RunSettings
from vcppo.studies.study import parse_study
from vcppo.studies.verl import launching
from vcppo.studies.verl.cells import runs_of
from vcppo.studies.verl.launching import check_run, check_study, command_line, parse_words, silent_settings
from vcppo.studies.verl.names import (
    APART,
    MAPPED,
    ONLY,
    Mapped,
    counterpart,
    table,
)
from vcppo.studies.verl.overrides import pretraining_overrides, refusals, rl_overrides

BASE = {
    "model.path": "models/policy",
    "policy.schedule": "constant",
    "critic.schedule": "constant",
    "critic.init": "policy",
    "rollout.max_tokens": 64,
    "policy.warmup_steps": 0,
    "critic.warmup_steps": 0,
}
WORDS = ["data.train_files=train.parquet", "data.val_files=val.parquet"]

# For each mapped setting: another value, and what has to be set beside it for it to be read.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (3, {}),
    "steps": (7, {}),
    "model.path": ("models/other", {}),
    "rollout.prompts": (48, {}),
    "rollout.samples_per_prompt": (2, {}),
    "rollout.temperature": (0.7, {}),
    "rollout.top_p": (0.9, {}),
    "rollout.max_tokens": (128, {}),
    "gae.gamma": (0.99, {}),
    "gae.lambda_actor": (0.9, {}),
    "gae.lambda_critic": (0.9, {}),
    "gae.length_adaptive_alpha": (0.05, {}),
    "advantage.estimator": ("grpo", {"rollout.samples_per_prompt": 2}),
    "advantage.whiten": ("batch", {}),
    "advantage.clip": (5.0, {}),
    "advantage.group_scale": (False, {"advantage.estimator": "grpo", "rollout.samples_per_prompt": 2}),
    "kl.placement": ("loss", {}),
    "kl.coefficient": (0.05, {"kl.placement": "reward"}),
    "kl.estimator": ("k1", {"kl.placement": "loss"}),
    "policy.epochs": (2, {}),
    "policy.minibatches": (2, {}),
    "policy.loss": ("gspo", {}),
    "policy.clip_low": (0.1, {}),
    "policy.clip_high": (0.3, {}),
    "policy.dual_clip": (3.0, {}),
    "policy.aggregation": ("fixed-length", {}),
    "policy.entropy_coefficient": (0.01, {}),
    "critic.init": ("reward-model", {}),
    "critic.path": ("trained/critic", {"critic.init": "saved", "critic.path": "another"}),
    "critic.updates_per_policy_update": (2, {}),
    "critic.policy_starts_after": (5, {}),
    "critic.value_loss": ("clipped", {}),
    "critic.value_clip_range": (0.2, {"critic.value_loss": "clipped"}),
    "critic.aggregation": ("sequence-mean", {}),
    "pretrain.steps": (40, {}),
    "pretrain.max_steps": (200, {}),
    "pretrain.batch": (64, {}),
    "pretrain.held_out": (100, {}),
    "pretrain.pool": (1000, {}),
    "pretrain.evaluate_every": (5, {}),
    "pretrain.patience": (30, {}),
    "pretrain.min_delta": (0.02, {}),
    "evaluation.samples": (32, {}),
    "evaluation.every": (5, {}),
    "evaluation.temperature": (0.6, {}),
    "evaluation.top_p": (0.95, {}),
    "record.checkpoint_every": (20, {}),
    "record.positions_every": (2, {}),
}
for _section in ("policy", "critic", "pretrain"):
    CHANGES |= {
        f"{_section}.learning_rate": (3e-6, {}),
        f"{_section}.schedule": ("cosine", {}),
        f"{_section}.warmup_steps": (40, {}),
        f"{_section}.adam_beta1": (0.8, {}),
        f"{_section}.adam_beta2": (0.99, {}),
        f"{_section}.adam_epsilon": (1e-6, {}),
        f"{_section}.weight_decay": (0.1, {}),
        f"{_section}.max_grad_norm": (0.5, {}),
    }


def run_settings(**changes: Any) -> RunSettings:
    return override(override(RunSettings(), BASE), changes)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    return {key for key in ours.keys() | theirs.keys() if ours.get(key, "absent") != theirs.get(key, "absent")}


def test_every_setting_has_one_counterpart_or_a_reason() -> None:
    for name in known_names():
        counterpart(name)
        section = f"{name.split('.')[0]}."
        exact = [name in side for side in (MAPPED, ONLY, APART)]
        assert sum(exact) == 1 or (not any(exact) and section in APART), name


def test_the_tables_name_no_setting_that_there_is_not() -> None:
    known = known_names()
    assert [name for name in (*MAPPED, *ONLY) if name not in known] == []
    assert [name for name in APART if not any(k == name or k.startswith(name) for k in known)] == []


def test_every_mapped_setting_is_tried() -> None:
    assert CHANGES.keys() == MAPPED.keys()


def test_without_a_critic_verl_is_told_so_and_nothing_more_of_it() -> None:
    told = rl_overrides(run_settings(**{"advantage.estimator": "grpo", "rollout.samples_per_prompt": 2}))
    assert told["critic.enable"] is False
    ours = ("critic.", "algorithm.vcppo.", "algorithm.lam", "trainer.critic_warmup")
    assert {key for key in told if key.lstrip("+").startswith(ours)} == {
        "critic.enable",
        "+algorithm.vcppo.positions_every",
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_the_words_of_verl_that_its_row_names(name: str) -> None:
    value, beside = CHANGES[name]
    mapped = counterpart(name)
    assert isinstance(mapped, Mapped)
    before, after = run_settings(**beside), run_settings(**{**beside, name: value})
    assert not list(refusals(after))
    rl = differing(rl_overrides(before), rl_overrides(after))
    pretraining = differing(pretraining_overrides(before), pretraining_overrides(after))
    assert rl or pretraining
    if name == "advantage.estimator":  # without a critic nothing is said of one
        rl, pretraining = rl & set(mapped.rl), set()
    if name == "pretrain.steps":  # a number needs no rule for when to stop
        pretraining -= {key for row in ("pretrain.patience", "pretrain.min_delta") for key in MAPPED[row].pretraining}
    if name == "kl.placement":
        rl -= {key for row in ("kl.coefficient", "kl.estimator") for key in MAPPED[row].rl}
        rl |= {"algorithm.use_kl_in_reward"}
    if name == "rollout.prompts":  # the same number of mini-batches are of other sizes
        rl -= set(MAPPED["policy.minibatches"].rl)
    if name == "critic.init":
        assert rl == pretraining == {"critic.model.path"}
        return
    if name == "model.path":  # and the critic's, where it starts from the policy
        rl, pretraining = rl - {"critic.model.path"}, pretraining - {"critic.model.path"}
    if name == "gae.length_adaptive_alpha":
        rl -= set(MAPPED["gae.lambda_actor"].rl)
    assert rl <= set(mapped.rl)
    assert pretraining <= set(mapped.pretraining)
    assert bool(rl) == bool(mapped.rl)
    if name not in ("rollout.samples_per_prompt", "pretrain.max_steps"):
        assert bool(pretraining) == bool(mapped.pretraining)


def test_values_that_are_not_said_the_same_way() -> None:
    settings = run_settings(**{"critic.policy_starts_after": 5, "policy.minibatches": 4, "policy.warmup_steps": 9})
    told = rl_overrides(settings)
    assert told["trainer.critic_warmup"] == 6  # verl's N is N - 1 steps of the critic alone
    assert rl_overrides(run_settings())["trainer.critic_warmup"] == 0
    assert told["actor_rollout_ref.actor.ppo_mini_batch_size"] == 96 // 4
    assert told["actor_rollout_ref.actor.optim.lr_warmup_steps"] == 3  # 9 updates, 4 a step
    assert told["critic.loss_agg_mode"] == "token-mean"  # never left to the actor's
    assert told["critic.cliprange_value"] == 1e9
    pretraining = pretraining_overrides(run_settings())
    assert pretraining["+algorithm.vcppo.pretrain.held_out"] == pytest.approx(384 / 2688, abs=1e-6)
    assert pretraining["trainer.total_training_steps"] == 1000
    assert "+algorithm.vcppo.lambda_actor" not in pretraining


def test_pretraining_has_one_address_whatever_the_lambdas_are() -> None:
    def of(**changes: Any) -> tuple[str, str]:
        first, second = runs_of(run_settings(**changes), WORDS)
        return first.address.key, second.address.key

    base = of()
    other = of(**{"gae.lambda_actor": 0.9, "gae.lambda_critic": 0.9, "kl.placement": "loss", "policy.epochs": 2})
    assert other[0] == base[0]
    assert other[1] != base[1]
    later = of(**{"pretrain.learning_rate": 3e-5})
    assert later[0] != base[0]
    assert later[1] != base[1]  # by its parent


def test_ppo_starts_from_the_pretrained_critic_and_not_from_where_that_began() -> None:
    reward_model = run_settings(**{"critic.init": "reward-model"})
    for settings, words in ((run_settings(), WORDS), (reward_model, [*WORDS, "critic.model.path=rm"])):
        pretraining, rl = runs_of(settings, words)
        said = [*command_line(pretraining.overrides), *pretraining.words]
        assert sum(word.startswith("critic.model.path=") for word in said) == 1
        assert not any(word.startswith("critic.model.path=") for word in [*command_line(rl.overrides), *rl.words])
    (only,) = runs_of(run_settings(**{"pretrain.steps": 0}), WORDS)
    assert only.overrides["critic.model.path"] == "models/policy"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.path": "none"}, "model.path = none: expected the folder or hub name"),
        ({"policy.schedule": "linear"}, "policy.schedule = linear: expected constant or cosine"),
        ({"gae.bootstrap_truncated": True}, "gae.bootstrap_truncated = true: verl does not say which"),
        (
            {"advantage.estimator": "vine"},
            "advantage.estimator = vine: expected gae, grpo or rloo; in verl nobody samples continuations",
        ),
        ({"policy.loss": "awr"}, "policy.loss = awr: expected clip, gspo or cispo; in verl there is no such loss"),
        ({"advantage.whiten": "minibatch"}, "advantage.whiten = minibatch: expected none or batch"),
        ({"critic.init": "new"}, "critic.init = new: verl builds no critic from settings; expected policy, reward-"),
        ({"pretrain.gae_lambda": 0.95}, "pretrain.gae_lambda = 0.95: our trainer for verl pretrains on Monte-Carlo"),
        ({"rollout.prompts": 10, "policy.minibatches": 4}, "policy.minibatches = 4: expected a divisor"),
        ({"select.prune_rate": 0.5, "select.scope": "batch"}, "select.prune_rate = 0.5: verl has none; expected 0.0"),
        ({"critic.aggregation": "fixed-length", "rollout.max_tokens": "none"}, "critic.aggregation = fixed-length"),
    ],
)
def test_what_verl_cannot_do_is_refused(changes: dict[str, Any], said: str) -> None:
    problems = check_run(run_settings(**changes), parse_words(WORDS))
    assert any(problem.startswith(said) for problem in problems), problems


def test_words_of_verl_that_are_ours_to_say_are_refused() -> None:
    def problems(*words: str, **changes: Any) -> str:
        return "; ".join(check_run(run_settings(**changes), parse_words([*WORDS, *words])))

    assert problems() == ""
    assert problems("trainer.n_gpus_per_node=8") == ""
    assert "--verl algorithm.gamma=0.9: vcppo says it; use gae.gamma" in problems("algorithm.gamma=0.9")
    assert "use gae.lambda_critic" in problems("+algorithm.vcppo.lambda_critic=0.9")
    assert "trainer.resume_mode=disable: vcppo says it" in problems("trainer.resume_mode=disable")
    assert "use critic.init" in problems("critic.model.path=rm")
    assert problems("critic.model.path=rm", **{"critic.init": "reward-model"}) == ""
    assert "expected --verl critic.model.path=FOLDER" in problems(**{"critic.init": "reward-model"})
    assert "data.train_files is not given" in "; ".join(check_run(run_settings(), {}))
    with pytest.raises(ConfigError, match=r"--verl n_gpus: expected KEY=VALUE"):
        parse_words(["n_gpus"])
    with pytest.raises(ConfigError, match=r"--verl \+a\.b=2: a\.b is given twice"):
        parse_words(["a.b=1", "+a.b=2"])


def test_a_study_that_varies_what_verl_does_not_have_is_refused() -> None:
    study = parse_study({"name": "t", "title": "t", "base": BASE, "grid": {"task.chain_length": [5, 6]}}, "t")
    with pytest.raises(ConfigError, match=r"--runner verl: task\.chain_length \(varied by study t\): verl has no"):
        check_study(study, [0], WORDS)
    fine = parse_study({"name": "t", "title": "t", "base": BASE, "grid": {"gae.lambda_actor": [0.9, 1.0]}}, "t")
    check_study(fine, [0], WORDS)


def test_the_ends_of_a_search_are_looked_at() -> None:
    search = {"space": {"gae.lambda_actor": {"low": 0.9, "high": 1.0}, "policy.schedule": ["constant", "linear"]}}
    base = {name: value for name, value in BASE.items() if name != "policy.schedule"}
    study = parse_study({"name": "t", "title": "t", "base": base, "search": search}, "t")
    with pytest.raises(ConfigError, match=r"policy\.schedule = linear"):
        check_study(study, [0], WORDS)


def test_what_verl_never_hears_of_is_listed() -> None:
    base = {**BASE, "task.chain_length": 12, "reward.wrong": 0.0}
    study = parse_study({"name": "t", "title": "t", "base": base, "grid": {"gae.lambda_actor": [0.9]}}, "t")
    assert silent_settings(study.cells([0])) == ["task.chain_length", "reward.wrong"]


def test_without_verl_nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launching, "is_installed", lambda: False)
    study = parse_study({"name": "t", "title": "t", "base": BASE, "grid": {"gae.lambda_actor": [0.9]}}, "t")
    with pytest.raises(ConfigError, match=r"verl is not installed beside vcppo; pip install 'vcppo\[verl\]'"):
        launching.prepare_study(study, [0], WORDS, tmp_path, fresh=False)
    assert list(tmp_path.iterdir()) == []


def test_the_page_holds_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verl.md").read_text(encoding="utf-8")
    assert table() in page
