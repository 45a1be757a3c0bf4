"""A setting that would be ignored is refused with the reason, and whoever said it is told."""

import json
from pathlib import Path

import pytest
from choices import (
    DPO,
    EXACT,
    FROZEN,
    GRPO,
    INTEGER,
    MATHS,
    MEAN_SCORE,
    RLOO,
    SAVED,
    SERVER,
    TD,
    THERE,
    UNCLIPPED,
    VINE,
    VLLM,
    value,
)

from vcppo.errors import ConfigError
from vcppo.settings.loading import known_names, load, load_settings
from vcppo.settings.notes import lines
from vcppo.settings.unused import UNUSED
from vcppo.studies.study import parse_study

ADAM = ("learning_rate", "schedule", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay")


def names(section: str, words: str) -> list[str]:
    return [f"{section}.{word}" for word in words.split()]


LOCAL = (*MATHS, "task.maths.train=t.jsonl", "task.maths.evaluate=e.csv")

# (what makes them unused, settings that then are, the reason told)
IGNORED: list[tuple[tuple[str, ...], list[str], str]] = [
    (MATHS, names("task", "chain_length spread digits stop_hazard held_out held_out_for_search"), "task.name = maths"),
    ((), names("task.maths", "train answers workers"), "task.name = digits"),
    (
        MATHS,
        names("task.maths", "question_column answer_column solution_column name_column"),
        "the columns of dapo-math-17k and aime24 are known",
    ),
    (LOCAL, ["task.maths.train_split"], "task.maths.train is a file"),
    (LOCAL, ["task.maths.evaluate_split"], "task.maths.evaluate is a file"),
    (
        INTEGER,
        names("task.maths", "form time_limit_s memory_limit_mb workers"),
        "task.maths.answers = integer reads integers alone, and nothing is compared but their digits",
    ),
    ((*MATHS, "task.maths.template=plain"), ["task.maths.system"], "task.maths.template = plain has no system"),
    (MATHS, names("task.maths", "think_open think_close"), "task.maths.think = false"),
    (GRPO, names("critic", "init learning_rate value_loss update_every"), "advantage.estimator = grpo has no critic"),
    (VINE, names("pretrain", "steps batch pool"), "advantage.estimator = vine has no critic"),
    (
        ("pretrain.steps=0",),
        [
            *(f"pretrain.{name}" for name in ADAM),
            *names("pretrain", "max_grad_norm max_steps batch pool fresh_rollouts evaluate_every patience min_delta"),
            *names("pretrain", "held_out_prompts gae_lambda checkpoints"),
        ],
        "pretrain.steps = 0",
    ),
    (("pretrain.steps=0",), ["pretrain.held_out"], "pretrain.steps = 0, and no mean score is asked for"),
    ((*MEAN_SCORE, "pretrain.steps=0"), ["pretrain.pool"], "pretrain.steps = 0"),
    (
        ("critic.init=policy",),
        ["critic.scores"],
        "critic.init = policy does not read it; critic.init = reward-model does",
    ),
    (GRPO, ["critic.offset", "critic.profile", "critic.scores"], "advantage.estimator = grpo has no critic"),
    (("pretrain.steps=20",), names("pretrain", "patience min_delta"), "pretrain.steps = 20"),
    (("pretrain.fresh_rollouts=true",), ["pretrain.pool"], "pretrain.fresh_rollouts = true"),
    (RLOO, names("reward_model", "steps pairs learning_rate"), "no critic starts from a reward model here"),
    (("critic.init=policy",), ["reward_model.responses"], "no critic starts from a reward model here"),
    (TD, ["gae.lambda_actor"], "advantage.estimator = td uses no lambda"),
    (GRPO, ["gae.lambda_actor"], "advantage.estimator = grpo uses no lambda"),
    (
        ("gae.length_adaptive_alpha=0.05",),
        ["gae.lambda_actor"],
        "gae.length_adaptive_alpha makes lambda_actor from each response's length",
    ),
    (
        ("advantage.estimator=released-dvpo",),
        ["gae.length_adaptive_alpha"],
        "advantage.estimator = released-dvpo has no length-adaptive lambda",
    ),
    (
        EXACT,
        [*names("pretrain", "steps batch held_out"), "gae.lambda_critic"],
        "critic.init = exact computes its values and learns nothing",
    ),
    (
        EXACT,
        names("critic", "learning_rate update_every"),
        "critic.init = exact does not read it; critic.init = reward-model, policy",
    ),
    ((), names("critic", "unseen sight blur"), "critic.init = reward-model does not read it; critic.init = exact does"),
    (GRPO, ["gae.lambda_critic"], "advantage.estimator = grpo has no critic"),
    (FROZEN, ["gae.lambda_critic"], "critic.update_every = never: it is frozen"),
    (GRPO, ["gae.gamma"], "advantage.estimator = grpo discounts nothing"),
    (VINE, ["gae.gamma"], "advantage.estimator = vine discounts nothing"),
    (DPO, ["gae.gamma"], "advantage.estimator = none discounts nothing"),
    (
        ("advantage.estimator=return",),
        ["gae.bootstrap_truncated"],
        "advantage.estimator = return bootstraps nothing",
    ),
    (
        ("select.drop_truncated=true",),
        ["gae.bootstrap_truncated"],
        "select.drop_truncated = true: no response that was cut is trained on",
    ),
    (
        FROZEN,
        [
            *(f"critic.{name}" for name in ADAM),
            *names("critic", "max_grad_norm updates_per_policy_update value_loss value_clip_range normalise_returns"),
        ],
        "critic.update_every = never: it is frozen",
    ),
    (("critic.value_loss=mse",), ["critic.value_clip_range"], "critic.value_loss = mse"),
    (DPO, names("advantage", "whiten clip"), "advantage.estimator = none"),
    (RLOO, ["advantage.group_scale"], "advantage.estimator = rloo does not read it; advantage.estimator = grpo does"),
    (("kl.placement=none",), names("kl", "coefficient estimator"), "kl.placement = none"),
    ((), names("reference", "ema refresh_every"), "nothing compares with a reference here"),
    (
        UNCLIPPED,
        names("policy", "clip_low clip_high"),
        "policy.loss = unclipped does not read it; policy.loss = clip, gspo or cispo does",
    ),
    (
        ("policy.loss=apa",),
        names("policy", "clip_low clip_high"),
        "policy.loss = apa does not read it; policy.loss = clip, gspo or cispo does",
    ),
    (("policy.loss=cispo",), ["policy.dual_clip"], "policy.loss = cispo does not read it; policy.loss = clip does"),
    ((), ["policy.advantage_temperature"], "policy.loss = clip does not read it; policy.loss = apa or awr does"),
    ((), ["policy.dpo_beta"], "policy.loss = clip does not read it; policy.loss = dpo does"),
    (DPO, ["policy.aggregation"], "policy.loss = dpo does not read it; policy.loss = "),
    (DPO, names("reward", "normalise clip overlong_share truncated"), "DPO reads verdicts, not rewards"),
    (DPO, ["select.drop_truncated"], "DPO takes every pair of a right and a wrong response"),
    ((), ["reward.overlong_penalty"], "reward.overlong_share = none"),
    ((), names("token_reward", "weight clip dpo_steps"), "token_reward.kind = none"),
    (GRPO, names("select", "scope keep refill"), "select.prune_rate = 0"),
    ((*GRPO, "select.prune_rate=0.25"), ["select.refill"], "at select.prune_rate = 0.25 it asks no question more"),
    (GRPO, ["select.max_rounds"], "select.dynamic_sampling = false"),
    (GRPO, names("vine", "samples max_steps cap"), "advantage.estimator = grpo is not vine"),
    ((*VINE, "vine.max_steps=none"), ["vine.cap"], "vine.max_steps = none"),
    (UNCLIPPED, ["early_stop.threshold"], "early_stop.deviation = none"),
    (
        (*UNCLIPPED, "early_stop.deviation=sequences"),
        ["early_stop.entropy_share"],
        "early_stop.deviation = sequences",
    ),
    (("evaluation.every=0",), ["evaluation.samples_during"], "evaluation.every = 0"),
    (
        ("evaluation.temperature=0",),
        names("evaluation", "top_p seed"),
        "evaluation.temperature = 0 is greedy decoding, which draws nothing",
    ),
    ((), names("record", "truth_responses truth_samples"), "record.truth_every = 0"),
    (
        GRPO,
        names("record", "truth_every truth_responses truth_samples"),
        "advantage.estimator = grpo estimates no state's value",
    ),
    ((), names("mismatch", "cap alarm"), "nothing is compared here"),
    *(
        (
            (*more, "mismatch.check=always"),
            ["mismatch.cap"],
            f"{more[-1].replace('=', ' = ')} is not linear in its advantages",
        )
        for more in (("policy.loss=apa",), ("policy.loss=awr",), DPO)
    ),
    ((), names("lora", "alpha targets"), "lora.rank = 0: all weights are trained"),
    (
        ("policy.minibatches=1", "policy.epochs=1"),
        ["guard.kl_alarm"],
        "between updates that are one an iteration there is nothing to measure",
    ),
    (
        (*UNCLIPPED, "policy.minibatches=1", "policy.epochs=1"),
        ["early_stop.deviation"],
        "between updates that are one an iteration there is nothing to measure",
    ),
    (DPO, ["record.alignment_every"], "policy.loss = dpo has pairs in place of advantages"),
    (DPO, ["record.forecast_responses"], "policy.loss = dpo has no advantages"),
    ((), ["critic.path"], "critic.init = reward-model"),
    ((), ["critic.initial_value"], "critic.init = reward-model does not read it; critic.init = policy or new does"),
    ((*SAVED,), ["critic.initial_value"], "critic.init = saved does not read it; critic.init = policy or new does"),
    (
        ("model.path=there",),
        names("model", "architecture hidden_size intermediate_size layers heads kv_heads initializer_range tied"),
        "the model of model.path has a shape of its own",
    ),
    (
        ("model.path=there", "cold_start.steps=0"),
        [*(f"cold_start.{name}" for name in ADAM), *names("cold_start", "max_grad_norm batch_tokens")],
        "cold_start.steps = 0",
    ),
    (
        (),
        [
            *names("engine", "mode python url devices tensor_parallel memory_share max_sequences max_length dtype"),
            *names("engine", "enforce_eager prefix_caching sleep start_timeout_s request_timeout_s"),
        ],
        "engine.kind = torch",
    ),
    (
        VLLM,
        names("engine", "python url devices start_timeout_s request_timeout_s"),
        "engine.mode = colocated starts no server",
    ),
    (THERE, names("engine", "python devices"), "the server at engine.url = node3:7100 runs already"),
    (SERVER, ["engine.sleep"], "engine.mode = server has its memory to itself"),
]
CASES = [(given, name, reason) for given, ignored, reason in IGNORED for name in ignored]


def identity(case: tuple[tuple[str, ...], str, str]) -> str:
    return f"{case[1]}:{','.join(case[0])}"


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_a_setting_that_would_be_ignored_is_refused_with_the_reason(case: tuple[tuple[str, ...], str, str]) -> None:
    given, name, reason = case
    load_settings(assignments=given)  # fine without it
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=[*given, f"{name}={value(name)}"])
    said = str(caught.value)
    assert said.startswith(f"{name} = ")
    assert f" (from --set): it would be ignored, for {reason}" in said
    assert "\n" not in said


def test_every_rule_is_held_by_a_case_of_its_own() -> None:
    """Of each name in each rule: a case in which that rule is the one that speaks."""
    found = {(name, reason) for _, name, reason in CASES}
    settings = [(load_settings(assignments=given), name) for given, name, _ in CASES]
    for rule, (ruled, when, why) in enumerate(UNUSED):
        for name in ruled:
            of_it = [known for known in known_names() if known == name or known.startswith(f"{name}.")]
            assert of_it, f"rule {rule} names {name}, which is no setting"
            held = [s for s, case in settings if case in of_it and when(s) and (case, why.format(s=s)) in found]
            assert held, f"rule {rule}, {name}: {why}"


def study(base: dict[str, object], *methods: str) -> None:
    arms = [{"name": method, "set": {"method": method}} for method in methods]
    parse_study({"name": "s", "title": "t", "seeds": 1, "base": base, "arms": arms}, "s.toml")


def test_a_studys_base_may_hold_what_one_arm_ignores_but_not_what_all_ignore() -> None:
    base: dict[str, object] = {"pretrain.batch": 7, "vine.samples": 2}
    study(base, "vcppo", "grpo", "vineppo")
    with pytest.raises(ConfigError) as caught:
        study(base, "vcppo", "grpo")
    assert str(caught.value) == (
        "vine.samples (from study s, [base]): every run would ignore it: advantage.estimator = gae is not vine"
    )


def test_an_arm_may_not_hold_what_it_ignores() -> None:
    arms = [{"name": "a", "set": {"method": "grpo", "gae.lambda_actor": 0.5}}, {"name": "b"}]
    with pytest.raises(ConfigError, match=r"gae.lambda_actor = 0.5 \(from study s, arm a\): it would be ignored"):
        parse_study({"name": "s", "title": "t", "arms": arms}, "s.toml")


def test_a_grid_over_what_is_ignored_is_refused() -> None:
    tree = {"name": "s", "title": "t", "base": {"method": "dvpo"}, "grid": {"gae.lambda_actor": [0.5, 1.0]}}
    with pytest.raises(ConfigError, match=r"gae.lambda_actor = 0.5 \(from study s, \[grid\]\): it would be ignored"):
        parse_study(tree, "s.toml")


@pytest.mark.parametrize("method", ["ppo", "grpo", "dvpo", "dpo"])
def test_the_whole_record_of_a_run_is_taken_though_it_names_what_the_method_ignores(
    tmp_path: Path, method: str
) -> None:
    settings = load_settings(assignments=[f"method={method}", "seed=3"])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    assert load_settings(file) == settings


def test_a_file_is_told_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('method = "grpo"\n[vine]\nsamples = 3\n')
    with pytest.raises(ConfigError, match=rf"vine.samples = 3 \(from {file}\): it would be ignored"):
        load_settings(file)


def test_every_mistake_of_several_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=["gae.gamma=7", "policy.clip_low=-1"])
    assert "gae.gamma = 7" in str(caught.value)
    assert "policy.clip_low = -1" in str(caught.value)
    assert "\n" not in str(caught.value)


ONE = "policy.minibatches=1"
WITHOUT_EFFECT = [
    ([ONE], "policy.clip_high=0.3", "a batch is for one update, whose ratios are all 1"),
    ([ONE], "critic.value_loss=clipped", "a batch is for one update, whose values are the old ones"),
    (["method=rto", "token_reward.weight=0"], "token_reward.clip=0.5", "token_reward.weight = 0; token_reward.kind"),
    ([*MATHS, "rollout.max_tokens=9"], "task.maths.max_tokens=20", "rollout.max_tokens = 9 is the limit"),
    (["method=grpo"], "record.positions_every=5", "advantage.estimator = grpo estimates no state's value"),
]
MAY_CLIP = [["policy.minibatches=2"], [ONE, "rollout.refresh_every=2"], [ONE, "policy.epochs=2"]]


@pytest.mark.parametrize(("given", "setting", "reason"), WITHOUT_EFFECT)
def test_a_setting_that_is_read_and_changes_nothing_is_told(given: list[str], setting: str, reason: str) -> None:
    name = setting.partition("=")[0]
    resolved = load(None, [*given, setting])
    (said,) = [line for line in lines(resolved.notes) if name in line.partition(" (")[0]]
    assert f"{name} (from --set) changes nothing: {reason}" in said
    assert not [line for line in lines(load(None, given).notes) if name in line.partition(" (")[0]]


@pytest.mark.parametrize("given", MAY_CLIP)
def test_a_clip_that_may_matter_is_not(given: list[str]) -> None:
    assert not [line for line in lines(load(None, [*given, "policy.clip_high=0.3"]).notes) if "changes nothing" in line]


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = load_settings(assignments=["model.path=~/m", "task.name=maths", "critic.init=saved", "critic.path=~/c"])
    assert settings.model.path == "/home/somebody/m"
    assert settings.critic.init == "saved"
    assert settings.critic.path == "/home/somebody/c"
