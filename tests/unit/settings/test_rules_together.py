"""Settings that make no sense together are refused with both named, and their neighbours are taken."""

import pytest
from choices import (
    DPO,
    EXACT,
    FROZEN,
    GROUPS,
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
from vcppo.settings.loading import load_settings
from vcppo.settings.unused import unused

RTO = ("token_reward.kind=rto",)


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
