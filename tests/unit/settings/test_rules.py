"""A setting that would be ignored is refused with the reason, and so are settings that make no sense together."""

import json
from pathlib import Path

import pytest

from vcppo.errors import ConfigError
from vcppo.settings.kinds import layout
from vcppo.settings.loading import flatten, known_names, load_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.unused import UNUSED, unused
from vcppo.studies.study import parse_study

GROUPS = ("rollout.prompts=12", "rollout.samples_per_prompt=8")
MEAN_SCORE = ("critic.init=policy", "critic.initial_value=mean-score")
GRPO = (*GROUPS, "advantage.estimator=grpo")
RLOO = (*GROUPS, "advantage.estimator=rloo")
DPO = (*GROUPS, "advantage.estimator=none", "policy.loss=dpo")
VINE = ("advantage.estimator=vine",)
TD = ("advantage.estimator=td",)
FROZEN = ("critic.update_every=never",)
RTO = ("token_reward.kind=rto",)
SAVED = ("critic.init=saved", "critic.path=there")
EXACT = ("critic.init=exact",)
UNCLIPPED = ("policy.loss=unclipped",)
VLLM = ("engine.kind=vllm",)
SERVER = (*VLLM, "engine.mode=server")
THERE = (*SERVER, "engine.url=node3:7100")
ADAM = ("learning_rate", "schedule", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay")


def value(name: str) -> str:
    """A setting's own default as text: refused or not, that it is said is what matters."""
    at = flatten(RunSettings().model_dump(mode="json")).get(name, layout()[name].default)
    return "none" if at is None else json.dumps(at)


def names(section: str, words: str) -> list[str]:
    return [f"{section}.{word}" for word in words.split()]


MATHS = ("task.name=maths", "model.path=m")
LOCAL = (*MATHS, "task.maths.train=t.jsonl", "task.maths.evaluate=e.csv")
INTEGER = (*MATHS, "task.maths.answers=integer")


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


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ((), "task.held_out"),
        (MATHS, "task.maths.train"),
        (MATHS, "task.maths.train_split"),
        (MATHS, "task.maths.boxed_only"),
        (MATHS, "task.maths.system"),
        ((*MATHS, "task.maths.think=true"), "task.maths.think_close"),
        ((*MATHS, "task.maths.evaluate=e.parquet"), "task.maths.answer_column"),
        (INTEGER, "task.maths.max_tokens"),
        (INTEGER, "task.maths.boxed_only"),
        ((), "critic.init"),
        ((), "reward_model.steps"),
        ((), "pretrain.patience"),
        ((), "pretrain.pool"),
        ((*MEAN_SCORE, "pretrain.steps=0"), "pretrain.held_out"),
        ((), "policy.aggregation"),
        ((), "select.drop_truncated"),
        ((*UNCLIPPED, "early_stop.deviation=tokens"), "early_stop.threshold"),
        ((), "gae.lambda_critic"),
        ((), "gae.bootstrap_truncated"),
        ((), "policy.clip_high"),
        ((), "policy.dual_clip"),
        (("advantage.estimator=released-dvpo",), "gae.lambda_actor"),
        (FROZEN, "critic.aggregation"),
        (FROZEN, "critic.init"),
        (FROZEN, "pretrain.batch"),
        (TD, "gae.gamma"),
        (TD, "gae.lambda_critic"),
        (("advantage.estimator=return",), "gae.gamma"),
        (("advantage.estimator=q",), "gae.bootstrap_truncated"),
        (("critic.value_loss=clipped",), "critic.value_clip_range"),
        (GRPO, "advantage.group_scale"),
        (RLOO, "advantage.whiten"),
        (("kl.placement=loss",), "kl.estimator"),
        (("kl.placement=reward",), "reference.ema"),
        (RTO, "token_reward.weight"),
        (("policy.loss=gspo",), "policy.clip_low"),
        (("policy.loss=awr",), "policy.advantage_temperature"),
        (DPO, "policy.dpo_beta"),
        (DPO, "reference.refresh_every"),
        (DPO, "select.dynamic_sampling"),
        (("reward.overlong_share=0.2",), "reward.overlong_penalty"),
        ((*GRPO, "select.prune_rate=0.5"), "select.refill"),
        ((*GRPO, "select.dynamic_sampling=true"), "select.max_rounds"),
        (VINE, "vine.cap"),
        ((*UNCLIPPED, "early_stop.deviation=high-entropy-tokens"), "early_stop.entropy_share"),
        (("evaluation.every=0",), "evaluation.samples"),
        ((), "evaluation.samples_during"),
        ((), "guard.kl_alarm"),
        (("policy.minibatches=1", "policy.epochs=2"), "guard.kl_alarm"),
        (("record.truth_every=5",), "record.truth_samples"),
        ((*VINE, "record.truth_every=5"), "record.truth_samples"),
        (("mismatch.check=always",), "mismatch.cap"),
        (("compute.dtype=bfloat16",), "mismatch.alarm"),
        (("model.path=there", "lora.rank=4"), "lora.targets"),
        (("critic.init=policy",), "critic.initial_value"),
        *((("critic.init=new",), f"critic.{name}") for name in ("initial_value", "layers", "heads", "bounded")),
        (("model.path=there",), "cold_start.learning_rate"),
        (VLLM, "engine.sleep"),
        (VLLM, "engine.tensor_parallel"),
        (SERVER, "engine.python"),
        (SERVER, "engine.devices"),
        (THERE, "engine.start_timeout_s"),
        (THERE, "engine.dtype"),
    ],
)
def test_a_setting_with_a_use_is_taken(given: tuple[str, ...], used: str) -> None:
    assert unused(load_settings(assignments=[*given, f"{used}={value(used)}"]), used) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("task.name=maths",), "model.path = none: task.name = maths needs a model that can read"),
        (
            ("evaluation.problems=search",),
            "evaluation.problems = search: none are kept for it, expected task.held",
        ),
        (
            (*MATHS, "evaluation.problems=search"),
            "evaluation.problems = search: task.name = maths keeps",
        ),
        ((*GRPO, "select.prune_rate=0.5", "policy.minibatches=49"), "policy.minibatches = 49: expected at most the 48"),
        (
            (*GRPO, "select.prune_rate=0.5", "select.refill=true", "policy.minibatches=97"),
            "policy.minibatches = 97: expected at most the 96",
        ),
        (("advantage.estimator=grpo",), "rollout.samples_per_prompt = 1: advantage.estimator = grpo compares"),
        (("advantage.estimator=rloo",), "rollout.samples_per_prompt = 1: advantage.estimator = rloo compares"),
        (("advantage.estimator=none", "policy.loss=dpo"), "rollout.samples_per_prompt = 1: policy.loss = dpo compares"),
        (("select.dynamic_sampling=true",), "rollout.samples_per_prompt = 1: select.dynamic_sampling = true compares"),
        (("select.prune_rate=0.5",), "rollout.samples_per_prompt = 1: select.prune_rate = 0.5 compares"),
        ((*GROUPS, "policy.loss=dpo"), "policy.loss = dpo with advantage.estimator = gae: DPO has pairs"),
        ((*GROUPS, "advantage.estimator=none"), "policy.loss = clip with advantage.estimator = none: DPO has pairs"),
        ((*GRPO, "reward.normalise=scale"), "reward.normalise = scale with GRPO's division by the group's deviation"),
        (
            ("gae.bootstrap_truncated=true", "reward.truncated=0"),
            "reward.truncated = 0 with gae.bootstrap_truncated = true: a response cut at the limit is worth V there",
        ),
        (
            (*TD, "gae.bootstrap_truncated=true", "reward.overlong_share=0.2"),
            "reward.overlong_share = 0.2 with gae.bootstrap_truncated = true: a response cut at the limit is worth V",
        ),
        ((*RTO, "reference.ema=0.1"), "token_reward.kind = rto with a reference that moves"),
        ((*RTO, "reference.refresh_every=5"), "token_reward.kind = rto with a reference that moves"),
        (
            ("kl.placement=loss", "reference.ema=0.1", "reference.refresh_every=5"),
            "reference.ema with reference.refresh_every: it moves one way or the other",
        ),
        (
            (*GRPO, "select.prune_rate=0.5", "kl.placement=reward"),
            "select.prune_rate with a reward that needs a forward",
        ),
        ((*RLOO, "select.prune_rate=0.5", *RTO), "select.prune_rate with a reward that needs a forward pass"),
        ((*VINE, "kl.placement=reward"), "advantage.estimator = vine with a reward on every token"),
        ((*VINE, *RTO), "advantage.estimator = vine with a reward on every token"),
        (("advantage.estimator=released-dvpo", *RTO), "token_reward.kind = rto: DVPO's released code has no reward"),
        (
            ("early_stop.deviation=tokens",),
            "early_stop.deviation = tokens with policy.loss = clip: ESPO stops in place",
        ),
        (("policy.loss=gspo", "early_stop.deviation=tokens"), "early_stop.deviation = tokens with policy.loss = gspo"),
        (
            ("policy.loss=cispo", "early_stop.deviation=tokens"),
            "early_stop.deviation = tokens with policy.loss = cispo",
        ),
        (
            ("policy.loss=apa", "early_stop.deviation=sequences"),
            "early_stop.deviation = sequences with policy.loss = apa, which knows no ratio",
        ),
        ((*DPO, "early_stop.deviation=tokens"), "early_stop.deviation = tokens with policy.loss = dpo, which knows no"),
        (("policy.loss=apa", "reference.ema=0.5"), "policy.loss = apa with a reference that moves"),
        (("policy.loss=apa", "reference.refresh_every=5"), "policy.loss = apa with a reference that moves"),
        ((*DPO, "kl.placement=loss"), "kl.placement = loss with policy.loss = dpo: policy.dpo_beta is its weight"),
        ((*DPO, *RTO), "token_reward.kind = rto with policy.loss = dpo: DPO reads verdicts"),
        ((*DPO, "select.prune_rate=0.5"), "select.prune_rate = 0.5 with policy.loss = dpo: pairs are made of"),
        ((*FROZEN, "critic.policy_starts_after=3"), "critic.policy_starts_after = 3 with critic.update_every = never"),
        (("critic.normalise_returns=true",), "critic.normalise_returns with value pretraining"),
        (("cold_start.steps=0",), "cold_start.steps = 0 without model.path: a fresh model knows nothing"),
        (("lora.rank=4",), "lora.rank without model.path: a fresh model's own weights would stay random"),
        (
            ("compute.packing=true", "compute.attention=eager"),
            "compute.packing with compute.attention = eager: it would let responses see each other",
        ),
        *(
            ((*EXACT, *more), f"critic.init = exact with {what} (docs/critics.md)")
            for more, what in {
                ("rollout.top_p=0.9",): "rollout.top_p = 0.9: expected 1",
                ("gae.gamma=0.99",): "gae.gamma = 0.99: expected 1",
                ("reward.unreadable=-2",): "reward.unreadable = -2: expected reward.wrong = -1",
                ("reward.truncated=0.5",): "reward.truncated = 0.5: expected none",
                ("reward.overlong_share=0.2",): "reward.overlong_share = 0.2: expected none",
                ("reward.clip=5",): "reward.clip = 5: expected none",
                ("reward.normalise=scale",): "reward.normalise = scale: expected none",
                ("kl.placement=reward",): "kl.placement = reward: expected loss or none",
                RTO: "token_reward.kind = rto: expected none",
                ("gae.bootstrap_truncated=true",): "gae.bootstrap_truncated = true: expected false",
            }.items()
        ),
        (
            (*EXACT, *MATHS),
            "critic.init = exact with task.name = maths: nobody knows what its right responses are made",
        ),
        (("critic.init=saved",), "critic.init = saved without critic.path: expected the folder"),
        (
            ("pretrain.patience=2",),
            "pretrain.patience = 2: it counts updates, and was counted in measurements before; expected "
            "pretrain.evaluate_every = 10 or more",
        ),
        *(
            (
                ("critic.init=new", *sizes),
                f"critic.hidden_size {hidden}, critic.heads {heads}: expected a hidden_size that is an even multiple",
            )
            for sizes, hidden, heads in (
                (("critic.hidden_size=30",), 30, 4),
                (("critic.heads=3",), 64, 3),
                (("critic.hidden_size=12", "critic.heads=4"), 12, 4),
            )
        ),
        (
            ("critic.init=new", "model.path=there", "lora.rank=4"),
            "critic.init = new with lora.rank = 4: a new critic's own weights would stay random; expected",
        ),
        (
            ("critic.init=new", "critic.initial_value=mean-score", "pretrain.steps=0", "critic.normalise_returns=true"),
            "critic.initial_value = mean-score with critic.normalise_returns: what such a critic learns has mean 0",
        ),
        (
            (*MEAN_SCORE, "pretrain.steps=0", "critic.normalise_returns=true"),
            "critic.initial_value = mean-score with critic.normalise_returns: what such a critic learns has mean 0",
        ),
        *(
            (
                ("pretrain.steps=1001", f"pretrain.schedule={schedule}"),
                f"pretrain.steps = 1001 with pretrain.schedule = {schedule}: the rate is 0 from pretrain.max_steps",
            )
            for schedule in ("linear", "cosine")
        ),
        (
            ("pretrain.steps=5", "pretrain.max_steps=4", "pretrain.schedule=linear"),
            "pretrain.steps = 5 with pretrain.schedule = linear: the rate is 0 from pretrain.max_steps = 4 on; "
            "expected pretrain.max_steps = 5 or more, or pretrain.schedule = constant",
        ),
        *(
            (("critic.bounded=true", *more), "critic.bounded with returns beyond the scores' range")
            for more in (
                ("kl.placement=reward",),
                RTO,
                ("reward.normalise=scale",),
                ("critic.normalise_returns=true", "pretrain.steps=0"),
            )
        ),
        *(
            (
                (said, beside, "pretrain.steps=0"),
                f"{what} with {beside.removesuffix('=true')}: its head",
            )
            for said, what in (
                ("critic.offset=-1", "critic.offset = -1"),
                ("critic.scores=fitted", "critic.scores = fitted"),
            )
            for beside in ("critic.bounded=true", "critic.normalise_returns=true")
        ),
        *(
            (
                (f"critic.profile={profile}",),
                f"critic.profile = {profile!r} (from --set): expected token:offset pairs with rising tokens from 0 on",
            )
            for profile in ("0:", "0:low", "5:1 5:2", "-1:1", "0:nan", "0:1, 5:2")
        ),
        (
            (*VLLM, "rollout.temperature=0.001"),
            "rollout.temperature = 0.001 with engine.kind = vllm, which samples at 0.01 or above",
        ),
        ((*VLLM, "evaluation.temperature=0.0099"), "evaluation.temperature = 0.0099 with engine.kind = vllm"),
        *(
            (
                ("evaluation.temperature=0", f"evaluation.{name}=2"),
                f"evaluation.{name} = 2 with evaluation.temperature = 0",
            )
            for name in ("samples", "samples_during")
        ),
        (
            ("rollout.temperature=0",),
            "rollout.temperature = 0 (from --set): expected more than 0: what is trained on is sampled, for "
            "log-probabilities at temperature 0 (greedy decoding) are 0 or minus infinity and have no gradient",
        ),
        *(
            (
                (f"{section}.temperature={temperature}",),
                f"{section}.temperature = {float(temperature)!r} (from --set): expected 0.0001 or more",
            )
            for section in ("rollout", "evaluation")
            for temperature in ("9e-5", "1e-10", "1e-38", "1e-39", "1e-300")
        ),
        ((*SERVER, "engine.url=node3"), "engine.url = 'node3' (from --set): expected host:port"),
    ],
    ids=lambda part: ",".join(part) if isinstance(part, tuple) else "",
)
def test_settings_that_mean_nothing_together_are_refused_with_both_named(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ("evaluation.problems=search", "task.held_out_for_search=50"),
        ("task.held_out_for_search=50",),
        (*GRPO, "reward.normalise=scale", "advantage.group_scale=false"),
        (*RLOO, "reward.normalise=standardise"),
        (*RTO, "kl.placement=reward"),
        ("kl.placement=loss", "reference.ema=0.1"),
        (*GRPO, "select.prune_rate=0.5", "kl.placement=loss"),
        (*GROUPS, "select.prune_rate=0.5", "kl.placement=reward"),  # a critic's GAE, ranked by outcome
        (*VINE, "kl.placement=loss"),
        ("advantage.estimator=released-dvpo", "kl.placement=reward"),
        (*UNCLIPPED, "early_stop.deviation=tokens"),
        ("policy.loss=awr", "early_stop.deviation=tokens"),
        (*DPO, "reference.refresh_every=5"),
        ("select.prune_rate=0.5", "select.scope=batch"),
        ("critic.normalise_returns=true", "pretrain.steps=0"),
        ("model.path=there", "cold_start.steps=0"),
        ("compute.packing=true",),
        ("critic.bounded=true", "kl.placement=loss"),
        MEAN_SCORE,
        (*MEAN_SCORE, "pretrain.steps=0"),
        (*MEAN_SCORE, "pretrain.steps=0", "critic.bounded=true"),
        ("critic.scores=fitted", "critic.offset=0.5", "critic.profile=0:-0.7 15:0", "pretrain.held_out=64"),
        ("critic.scores=fitted", "pretrain.steps=0", "pretrain.held_out=64"),
        ("critic.init=policy", "pretrain.steps=0", "critic.normalise_returns=true"),
        ("pretrain.steps=20", "pretrain.evaluate_every=200"),
        ("pretrain.patience=10",),
        ("critic.init=new", "critic.heads=2", "critic.hidden_size=36"),
        ("pretrain.steps=1000", "pretrain.schedule=linear"),
        ("pretrain.steps=1001",),
        ("pretrain.steps=1001", "pretrain.schedule=cosine", "pretrain.max_steps=1001"),
        ("pretrain.schedule=linear",),  # until it converges, at most max_steps
        SAVED,
        EXACT,
        (*EXACT, "kl.placement=loss", "reward.wrong=0", "reward.unreadable=0"),
        (*EXACT, "model.path=there"),
        (*EXACT, "method=vapo"),
        (*EXACT, "advantage.estimator=td"),
        (*VLLM, "evaluation.temperature=0.01"),
        ("evaluation.temperature=0.001",),
        ("rollout.temperature=1e-4",),
        ("evaluation.temperature=0",),
        ("evaluation.temperature=0", "evaluation.samples=1"),
        ("evaluation.temperature=0", "evaluation.every=0"),
        (*VLLM, "evaluation.temperature=0"),
        THERE,
    ],
    ids=",".join,
)
def test_their_neighbours_are_taken(given: tuple[str, ...]) -> None:
    load_settings(assignments=given)


# ---- who is told ----


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
