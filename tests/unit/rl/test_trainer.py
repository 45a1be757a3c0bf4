"""What each method's iteration does: whom it trains on, what it spends, what it leaves alone, where it goes on."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny, tiny_method
from torch import Tensor

from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine
from vcppo.maths.advantages import whiten
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.rl import alarm, reading
from vcppo.rl import trainer as room
from vcppo.rl.costs import Costs
from vcppo.rl.experience import Iteration, Updates
from vcppo.rl.metrics import update_kl, value_metrics
from vcppo.rl.policy_update import PolicyUpdate, read_logprobs
from vcppo.rl.pretraining_targets import value_targets
from vcppo.rl.reference import Reference
from vcppo.rl.rewards import Shaping, returns_known, verdict_scores
from vcppo.rl.selection import choose, until_mixed
from vcppo.rl.trainer import Trainer
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.kinds import KINDS
from vcppo.settings.methods import METHODS
from vcppo.settings.policy import ReferenceSettings
from vcppo.settings.reward import RewardSettings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.context import StageContext
from vcppo.stages.rl import assemble, rl
from vcppo.stages.value_pretraining import token_reward_models
from vcppo.store.cache import Address, StageFolder
from vcppo.store.journal import read_journal
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Generation, Prompt, Rollout, RolloutBatch, Verdict

T = TypeVar("T")
SMALL = (
    "pretrain.steps=0",
    "rollout.prompts=3",
    "rollout.samples_per_prompt=4",
    "rollout.max_tokens=10",
    "policy.learning_rate=0.003",
    "critic.learning_rate=0.003",
    "vine.samples=2",
    "evaluation.every=0",
    "steps=4",
    "micro_batch_tokens=2000",
)


def by_length(self: DigitsTask, text: str, prompt: Prompt) -> Verdict:
    """About half of all responses are right, whatever the policy has learnt."""
    return Verdict.CORRECT if len(text.split()) % 2 else Verdict.WRONG


@pytest.fixture(autouse=True)
def verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact values know nothing of it: the truth is what continuations say."""
    monkeypatch.setattr(DigitsTask, "verify", by_length)
    monkeypatch.setattr(DigitsTaskSettings, "exact_values", False)


def place(path: Path) -> StageFolder:
    folder = StageFolder(path, Address("cold-start", {}, {}))
    folder.path = path
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageFolder]:
    """What earlier stages would have left: random models."""
    out, tokenizer = tmp_path_factory.mktemp("before"), make_task(tiny().task).tokenizer()
    save_model(new_policy(), tokenizer, out / "cold" / "policy")
    save_model(new_policy(seed=1), tokenizer, out / "dpo" / "policy")
    critic = loading.load_critic(out / "cold" / "policy", head_seed=5)
    torch.nn.init.normal_(forward.value_head(critic).weight, std=1.0, generator=torch.Generator().manual_seed(6))
    save_model(critic, tokenizer, out / "scores" / "critic")
    return {"cold-start": place(out / "cold"), "preference": place(out / "dpo"), "reward-model": place(out / "scores")}


Make = Callable[..., Trainer]


@pytest.fixture
def make(before: dict[str, StageFolder], tmp_path: Path) -> Make:
    """make(method, "key=value", ...): a trainer at its first iteration."""

    def new(method: str, *more: str, shared: tuple[str, ...] = ()) -> Trainer:
        return assemble(context(before, tmp_path, tiny_method(method, *more, shared=(*SMALL, *shared))))[0]

    return new


def context(before: dict[str, StageFolder], path: Path, settings: RunSettings) -> StageContext:
    earlier = dict(before)
    if settings.critic.init == "policy":
        del earlier["reward-model"]
    return StageContext(settings, place(path), earlier)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def spy(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    """(arguments, options, result) of every call from now on."""
    calls, original = [], getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options, original(*arguments, **options)))
        return calls[-1][2]

    monkeypatch.setattr(owner, name, watched)
    return calls


def present(value: T | None) -> T:
    """What this trainer has, though not every one has it."""
    assert value is not None
    return value


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


# ---- off is off ----

BOOTSTRAP = ("gae.bootstrap_truncated=true",)
RTO_WITHOUT = ("token_reward.kind=none",)
CLIPPED = ("critic.value_loss=clipped",)
OFF = [  # (method, settings of the one, of the other: the same to the bit; settings that do change something)
    ("cppo", ("select.prune_rate=0",), ("method=grpo",), ("select.prune_rate=0.5", "select.refill=false")),
    ("rto", ("token_reward.weight=0",), RTO_WITHOUT, ("token_reward.weight=0.5",)),
    ("semi-rto", ("token_reward.weight=0",), RTO_WITHOUT, ("token_reward.weight=0.5",)),
    ("espo", ("early_stop.threshold=1e9",), ("early_stop.deviation=none",), ("early_stop.threshold=0",)),
    ("ppo", ("rollout.refresh_every=2",), ("rollout.refresh_every=never",), ()),
    ("grpo", ("reference.refresh_every=9",), (), ("reference.refresh_every=1",)),
    ("grpo", ("kl.coefficient=0",), ("kl.placement=none",), ()),
    ("rloo", ("kl.coefficient=0",), ("kl.placement=none",), ()),
    ("ppo", ("reward.clip=99",), (), ("reward.clip=0.5",)),
    ("ppo", ("reward.overlong_share=0.1", "reward.overlong_penalty=1e-30"), (), ("reward.overlong_share=0.9",)),
    ("ppo", ("advantage.clip=1e9",), (), ("advantage.clip=0.1",)),
    ("ppo", ("policy.dual_clip=1e9",), (), ()),
    ("ppo", (*CLIPPED, "critic.value_clip_range=1e9"), (), (*CLIPPED, "critic.value_clip_range=1e-6")),
    ("vineppo", ("vine.max_steps=999",), ("vine.max_steps=none",), ("vine.max_steps=1",)),
    ("vineppo", ("vine.cap=first", "vine.max_steps=999"), ("vine.max_steps=none",), ("vine.samples=5",)),
    ("ppo", ("record.truth_every=1", "record.truth_samples=2"), (), ()),
]


def name_of(part: str | tuple[str, ...]) -> str:
    return part if isinstance(part, str) else ",".join(part)


def after_two(make: Make, method: str, *more: str) -> Tensor:
    given = dict(text.split("=", 1) for text in more)
    trainer = make(given.pop("method", method), *(f"{name}={value}" for name, value in given.items()))
    for _ in range(min(trainer.settings.steps, 2)):
        trainer.iterate()
    return weights(trainer.policy)


@pytest.mark.parametrize(("method", "one", "other", "on"), OFF, ids=name_of)
def test_a_component_that_is_off_leaves_no_trace(
    make: Make, method: str, one: tuple[str, ...], other: tuple[str, ...], on: tuple[str, ...]
) -> None:
    same = after_two(make, method, *other)
    assert_same(after_two(make, method, *one), same)
    if on:
        assert not torch.equal(after_two(make, method, *on), same)


def test_a_dpo_policy_that_is_the_reference_rewards_nothing(make: Make, before: dict[str, StageFolder]) -> None:
    without = after_two(make, "rto", *RTO_WITHOUT)
    assert not torch.equal(after_two(make, "rto"), without)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(before, "preference", before["cold-start"])
        assert_same(after_two(make, "rto"), without)


def test_dynamic_sampling_of_groups_that_are_always_mixed_is_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other response is right."""

    def turns() -> Callable[[DigitsTask, str, Prompt], Verdict]:
        verdicts = itertools.cycle([Verdict.CORRECT, Verdict.WRONG])
        return lambda self, text, prompt: next(verdicts)

    found = []
    for flag in ("true", "false"):
        monkeypatch.setattr(DigitsTask, "verify", turns())
        found.append(after_two(make, "dapo", f"select.dynamic_sampling={flag}"))
    assert_same(*found)


def test_a_reference_that_takes_the_policy_over_whole_has_no_kl(make: Make) -> None:
    trainer = make("grpo", "reference.ema=1", "policy.learning_rate=0.05")
    for _ in range(2):
        trainer.iterate()
        assert_same(weights(present(trainer.reference).policy), weights(trainer.policy))


# ---- costs ----


class Meter:
    """Counts what passes through models and engine by itself."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.generated = self.forward = self.backward = 0
        for name in ("response_logprobs", "response_values", "last_token_values"):
            patch.setattr(forward, name, self.reading(getattr(forward, name)))
        for name in ("generate", "branch"):
            patch.setattr(TorchEngine, name, self.writing(getattr(TorchEngine, name)))
        read = Decoder.read
        patch.setattr(Decoder, "read", lambda decoder, stems: (self.stems(stems), read(decoder, stems))[1])

    def stems(self, stems: Any) -> None:
        self.forward += sum(map(len, stems))

    def reading(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(model: Any, batch: RolloutBatch, *more: Any) -> Tensor:
            tokens = int((batch.prompt_lengths + batch.response_mask.sum(dim=1)).sum())
            if torch.is_grad_enabled():
                self.backward += tokens
            else:
                self.forward += tokens
            return original(model, batch, *more)

        return counted

    def writing(self, original: Callable[..., list[Generation]]) -> Callable[..., list[Generation]]:
        def counted(*arguments: Any, **options: Any) -> list[Generation]:
            made = original(*arguments, **options)
            self.generated += sum(len(one.tokens) for one in made)
            return made

        return counted


@pytest.mark.parametrize("method", METHODS)
def test_costs_are_what_passed_through_the_models(make: Make, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(method)
    if not trainer.settings.loss.pairs:
        trainer = make(method, "record.alignment_every=0")
    meter = Meter(monkeypatch)
    for _ in range(2):
        told = trainer.iterate().metrics
    assert told["cost/generated_tokens"] == meter.generated
    assert told["cost/forward_tokens"] == meter.forward
    assert told["cost/backward_tokens"] == meter.backward
    assert told["cost/compute_tokens"] == meter.generated + meter.forward + 3 * meter.backward
    assert told["cost/answers"] >= 2 * 12
    assert told["cost/elapsed_s"] > 0
    assert told["cost/peak_memory_mb"] > 10


def test_ppos_costs_by_hand(make: Make) -> None:
    trainer = make("ppo", "policy.epochs=2", "critic.updates_per_policy_update=3")
    done = trainer.iterate()
    tokens = int(done.batch.total_lengths.sum())
    assert trainer.costs.answers == 12
    assert trainer.costs.generated_tokens == int(done.batch.lengths.sum())
    assert trainer.costs.forward_tokens == tokens  # values
    assert trainer.costs.backward_tokens == 2 * tokens + 6 * tokens  # policy, critic


@pytest.mark.parametrize(
    ("method", "measured"),
    [
        ("vineppo", ("record.truth_every=1", "record.truth_samples=3")),
        ("vcppo", ("record.alignment_every=1",)),
    ],
)
def test_what_is_measured_beside_training_is_on_nobodys_account(
    make: Make, method: str, measured: tuple[str, ...]
) -> None:
    totals = []
    for more in (("record.alignment_every=0",), measured):
        told = make(method, *more).iterate().metrics
        totals.append({k: v for k, v in told.items() if k.startswith("cost/") and k.endswith(("tokens", "answers"))})
    assert len(totals[0]) == 5
    assert totals[0] == totals[1]


def test_compute_is_in_forward_passes() -> None:
    metrics = Costs(answers=1, generated_tokens=10, forward_tokens=200, backward_tokens=3000).metrics()
    assert metrics["cost/compute_tokens"] == 9210


# ---- who is trained on ----


def test_cppo_ranks_by_the_whole_group_and_trains_on_its_extremes(make: Make) -> None:
    whole = make("cppo", "select.prune_rate=0").iterate()
    done = make("cppo", "select.prune_rate=0.5", "select.refill=false").iterate()
    assert torch.equal(done.batch.input_ids, whole.batch.input_ids)
    assert len(done.rows) == 6
    assert_same(done.advantages.final[done.rows], whole.advantages.final[done.rows])
    size = whole.advantages.final[:, 0].abs()
    for group in done.batch.group.unique():
        rows = (done.batch.group == group).nonzero()[:, 0]
        stay = torch.isin(rows, done.rows)
        assert int(stay.sum()) == len(rows) // 2
        assert float(size[rows[stay]].min()) >= float(size[rows[~stay]].max())


@pytest.mark.parametrize("scope", ["question", "batch"])
def test_cppo_ranks_a_response_by_its_own_questions_others(scope: str) -> None:
    """One of four is wrong, one of four is right: these two stand out, though not from the average of all eight."""
    batch = dataclasses.replace(
        random_batch([2] * 8),
        scores=torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0]),
        group=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    )
    settings = tiny_method("cppo", "select.prune_rate=0.75", f"select.scope={scope}")
    assert choose(batch, settings, torch.Generator()).tolist() == [[3], [4]]


def test_cppo_reads_and_trains_on_no_row_that_it_dropped(make: Make) -> None:
    trainer = make("cppo", "select.prune_rate=0.75", "select.refill=false")
    done = trainer.iterate()
    tokens = int(done.batch.total_lengths[done.rows].sum())
    assert tokens < int(done.batch.total_lengths.sum())
    assert trainer.costs.forward_tokens == tokens  # the reference
    assert trainer.costs.backward_tokens == tokens
    dropped = torch.ones(12, dtype=torch.bool)
    dropped[done.rows] = False
    assert not bool(present(done.outputs.ref_logprobs)[dropped].any())
    assert bool(present(done.outputs.ref_logprobs)[done.rows].any(dim=1).all())


@pytest.mark.parametrize(("rate", "asked"), [(0.5, 2), (0.75, 4), (0.875, 8)])
def test_refilling_asks_for_as_many_more_questions_as_it_drops(make: Make, rate: float, asked: int) -> None:
    done = make("cppo", f"select.prune_rate={rate}", "rollout.samples_per_prompt=8").iterate()
    assert done.metrics["cost/answers"] == asked * 24
    assert len(done.rows) == 24


def test_refilling_and_dynamic_sampling_together_fill_the_wider_batch(make: Make) -> None:
    done = make("cppo", "select.prune_rate=0.5", "select.dynamic_sampling=true").iterate()
    assert len(done.batch.scores) == 24
    assert len(done.rows) == 12


def test_responses_that_were_cut_are_not_trained_on_if_so_wanted(make: Make) -> None:
    done = make("grpo", "select.drop_truncated=true", "rollout.max_tokens=6", "rollout.prompts=12").iterate()
    assert bool(done.batch.truncated.any())
    assert not bool(done.batch.truncated[done.rows].any())
    assert len(done.rows) == int((~done.batch.truncated).sum())
    assert make("grpo", "rollout.max_tokens=6").iterate().metrics["select/kept"] == 12


def by_first_of_group() -> Callable[[DigitsTask, str, Prompt], Verdict]:
    verdicts = itertools.cycle([Verdict.CORRECT, Verdict.WRONG, Verdict.WRONG, Verdict.WRONG])
    return lambda self, text, prompt: next(verdicts)


@pytest.mark.parametrize(
    ("method", "more", "wanted"),
    [  # scores 1, -1, -1, -1 of each group; the policy is the reference, so that no token has a reward
        ("rloo", (), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("kl.coefficient=0.5",), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("kl.estimator=k3", "kl.coefficient=0.5"), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("token_reward.kind=rto", "token_reward.weight=1"), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("grpo", ("kl.placement=reward",), [1.5, -0.5, -0.5, -0.5]),
        ("dr-grpo", ("kl.placement=reward",), [1.5, -0.5, -0.5, -0.5]),
        ("reinforce++-baseline", ("kl.placement=reward", "advantage.whiten=none"), [1.5, -0.5, -0.5, -0.5]),
    ],
    ids=str,
)
def test_a_response_that_is_dropped_is_one_of_its_group_by_its_own_reward(
    make: Make,
    before: dict[str, StageFolder],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    more: tuple[str, ...],
    wanted: list[float],
) -> None:
    monkeypatch.setattr(DigitsTask, "verify", by_first_of_group())
    monkeypatch.setitem(before, "preference", before["cold-start"])
    done = make(method, *more, "select.drop_truncated=true", "rollout.prompts=5").iterate()
    assert len(done.batch.group.unique()) == 5  # no question was drawn twice
    assert 0 < len(done.rows) < 20
    for row in done.rows.tolist():
        assert float(done.advantages.raw[row, 0]) == pytest.approx(wanted[row % 4], abs=1e-4)


def test_a_dropped_responses_token_rewards_count_in_its_groups_baseline(make: Make) -> None:
    """The same as if nothing were dropped: what is trained on does not change what it is compared with."""
    for method, more in (("rloo", ("kl.coefficient=1",)), ("grpo", ("kl.placement=reward", "token_reward.kind=rto"))):
        given = ("rollout.prompts=12", "policy.learning_rate=0.02", *more)
        whole, some = make(method, *given), make(method, *given, "select.drop_truncated=true")
        for trainer in (whole, some):  # a policy that has left its reference
            trainer.policy.load_state_dict(new_policy(seed=3).state_dict())
            trainer.sampler.engine.update_weights(trainer.policy)
        every, few = whole.iterate(), some.iterate()
        assert 0 < len(few.rows) < len(every.rows)
        assert_same(few.advantages.raw[few.rows], every.advantages.raw[few.rows])


SELECTIVE = {  # how each method comes to drop rows, other than by those that were cut
    "dpo": (),  # which are in no pair
    "dpo-iter": (),
    **dict.fromkeys(("ppo", "ppo-max", "ppo-xu", "vapo", "rto", "reinforce++", "apa"), ("select.prune_rate=0.5",)),
}
DROPPING = [*SELECTIVE.items(), *((name, ("select.drop_truncated=true",)) for name in METHODS if "dpo" not in name[:3])]


@pytest.mark.parametrize(("method", "more"), DROPPING, ids=name_of)
def test_nothing_of_a_row_that_was_never_read_enters_any_number(
    make: Make, monkeypatch: pytest.MonkeyPatch, method: str, more: tuple[str, ...]
) -> None:
    """Whatever stands in rows that were not asked for: 0, or no number."""
    read, found = forward.gather_outputs, []

    def poisoned(model: Any, batch: RolloutBatch, limit: int, score: Any, rows: Any = None, **options: Any) -> Tensor:
        got = read(model, batch, limit, score, rows, **options)
        if rows is not None:
            got[[row for row in range(len(batch.scores)) if row not in set(rows.tolist())]] = torch.nan
        return got

    for how in (read, poisoned):
        monkeypatch.setattr(forward, "gather_outputs", how)
        trainer = make(method, *more)
        dones = [trainer.iterate() for _ in range(3)]
        assert sum(len(done.rows) for done in dones) < sum(len(done.batch.scores) for done in dones)
        told = [
            {k: v for k, v in done.metrics.items() if not k.startswith((*CLOCKS, "value/explained_variance"))}
            for done in dones
        ]
        state = trainer.state()
        found.append((told, weights(trainer.policy), state["value_moments"], state["reward_moments"]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == pytest.approx(other, rel=0, abs=0, nan_ok=True)
    assert_same(found[0][1], found[1][1])
    assert found[0][2:] == found[1][2:]


@pytest.mark.parametrize("units", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "more", [(), ("critic.updates_per_policy_update=3",), ("early_stop.threshold=0",)], ids=name_of
)
def test_updates_that_have_no_rows_count_for_both_schedules(
    make: Make, monkeypatch: pytest.MonkeyPatch, units: int, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(room, "choose", lambda batch, *rest: choose(batch, *rest)[:units])
    trainer = make("espo" if "early_stop.threshold=0" in more else "ppo", *more, "policy.schedule=linear")
    each = trainer.settings.critic.updates_per_policy_update
    planned = trainer.settings.policy.epochs * trainer.settings.policy.minibatches
    for iteration in range(1, 5):
        told = trainer.iterate().metrics
        assert trainer.policy_optimiser.taken == iteration * planned
        assert trainer.critic_optimiser.taken == iteration * planned * each
        assert ("value/loss" in told) == (units > 0)
    assert trainer.policy_optimiser.learning_rate == trainer.critic_optimiser.learning_rate == 0


def test_a_critic_that_rests_counts_no_update_without_rows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "choose", lambda batch, *rest: choose(batch, *rest)[:0])
    trainer = make("ppo", "critic.update_every=3")
    for _ in range(4):
        trainer.iterate()
    assert trainer.critic_optimiser.taken == trainer.critic_optimiser.total_steps == 4


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_groups_that_agree_are_trained_on_where_more_than_their_scores_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What `until_mixed` says of them: by GAE at once, by a KL penalty once the policy has left its reference."""
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    trainer = make(
        method, "select.dynamic_sampling=true", "select.max_rounds=1", "kl.placement=loss", "kl.coefficient=1"
    )
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.mul_(1.1)
    first = weights(trainer.policy)
    assert trainer.iterate().metrics["select/kept"] == 12
    assert not torch.equal(weights(trainer.policy), first)


@pytest.mark.parametrize("method", ["dpo", "dapo"])
def test_an_iteration_of_nothing_to_learn_from_passes(make: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    trainer = make(method)
    first = weights(trainer.policy)
    told = trainer.iterate().metrics
    assert told["select/kept"] == {"dpo": 0, "dapo": 12}[method]  # no pair; no group with both: the last round's
    assert told["cost/answers"] == {"dpo": 12, "dapo": 120}[method]
    assert trainer.policy_optimiser.taken == 2  # the schedule goes on
    if method == "dpo":
        assert_same(weights(trainer.policy), first)
        assert told["cost/backward_tokens"] == 0


def rollout(question: int, right: bool) -> Rollout:
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return Rollout(Prompt(f"q{question}", "?", "1"), (1,), Generation((2,), (-1.0,), "stop"), "", verdict)


def rounds(*patterns: str) -> tuple[Callable[[int], list[Rollout]], list[int]]:
    """Groups of two by round, "10 11" for one mixed and one right group; and which rounds were asked for."""
    asked: list[int] = []

    def sample(number: int) -> list[Rollout]:
        asked.append(number)
        groups = patterns[number].split()
        return [rollout(100 * number + i, letter == "1") for i, group in enumerate(groups) for letter in group]

    return sample, asked


def test_dynamic_sampling_asks_until_enough_groups_are_mixed() -> None:
    sample, asked = rounds("11 10", "00 11", "01 10", "10 10")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=10)
    assert [r.prompt.name for r in batch] == ["q1", "q1", "q200", "q200"]  # in their order, no more than wanted
    assert asked == [0, 1, 2]
    assert len(everything) == 12


def test_dynamic_sampling_asks_no_more_than_it_needs() -> None:
    sample, asked = rounds("10 01", "10 01")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=10)
    assert (len(batch), len(everything), asked) == (4, 4, [0])


def test_dynamic_sampling_ends_with_a_smaller_batch_after_its_last_round() -> None:
    sample, asked = rounds("11 10", "00 11", "01 10")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=2)
    assert [r.prompt.name for r in batch] == ["q1", "q1"]
    assert (asked, len(everything)) == ([0, 1], 8)
    sample, _ = rounds("11 00", "00 11")
    batch, _ = until_mixed(sample, groups=2, size=2, max_rounds=2)
    assert [r.prompt.name for r in batch] == ["q100", "q100", "q101", "q101"]  # nothing mixed: the last round's


# ---- critics ----


def test_dvpos_critic_is_never_touched(make: Make) -> None:
    trainer = make("dvpo")
    first, policy = weights(present(trainer.critic)), weights(trainer.policy)
    for _ in range(2):
        told = trainer.iterate().metrics
        assert told["policy/updates"] == 2
        assert {"value/loss", "value/learning_rate", "value/grad_norm"} & told.keys() == set()
        assert {"value/mean", "value/value_bias"} <= told.keys()
    assert_same(weights(present(trainer.critic)), first)
    assert trainer.critic_optimiser.taken == 0
    assert not torch.equal(weights(trainer.policy), policy)


def test_a_critic_is_trained_every_so_many_iterations(make: Make) -> None:
    trainer = make("ppo", "critic.update_every=3")
    moved = []
    for _ in range(4):
        first = weights(present(trainer.critic))
        trainer.iterate()
        moved.append(not torch.equal(weights(present(trainer.critic)), first))
    assert moved == [True, False, False, True]
    assert trainer.critic_optimiser.taken == trainer.critic_optimiser.total_steps == 4
    assert trainer.critic_optimiser.learning_rate == 0


def test_value_normalisation_teaches_the_critic_in_its_own_units(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("ppo-xu", "reward.truncated=none", "policy.minibatches=1")
    calls = spy(monkeypatch, room, "update_critic")
    raw = spy(monkeypatch, reading, "read_values")
    first, second = trainer.iterate(), trainer.iterate()
    mask = first.batch.response_mask
    assert_same(present(first.outputs.values), raw[0][2])  # nothing seen yet: units of reward
    returns = first.returns[mask]
    mean, deviation = float(returns.mean()), float(returns.std(correction=0))
    assert trainer.value_moments.weight > 0
    _, _, part, values, targets = calls[0][0]
    live = part.response_mask
    assert float(targets[live].mean()) == pytest.approx(0, abs=1e-5)
    assert float(targets[live].std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert sorted(targets[live].tolist()) == pytest.approx(sorted(((returns - mean) / deviation).tolist()), abs=1e-4)
    assert sorted(values[live].tolist()) == sorted(raw[0][2][mask].tolist())  # old values are what the critic said
    mask = second.batch.response_mask
    expected = torch.where(mask, raw[1][2] * deviation + mean, 0.0)
    torch.testing.assert_close(second.outputs.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "more", [(), ("critic.value_clip_range=1e-4",), ("reward.correct=9", "reward.wrong=-1")], ids=str
)
def test_a_critic_that_has_not_moved_is_held_back_on_no_token(make: Make, more: tuple[str, ...]) -> None:
    """A clip around any other number than the critic's own leaves most tokens without gradient."""
    trainer = make("ppo-xu", "reward.truncated=none", "policy.minibatches=1", *more)
    for _ in range(3):
        assert trainer.iterate().metrics["value/clip_fraction"] == 0


def test_moments_of_returns_are_of_the_rows_trained_on(make: Make) -> None:
    """Cut responses are worth 10 more than any other, and are dropped."""
    trainer = make(
        "ppo-xu", "select.drop_truncated=true", "reward.truncated=10", "rollout.prompts=24", "kl.coefficient=0"
    )
    done = trainer.iterate()
    assert 0 < len(done.rows) < len(done.batch.scores)
    live = done.returns[done.rows][done.batch.response_mask[done.rows]]
    assert float(live.max()) < 1.01
    assert trainer.value_moments.mean == pytest.approx(float(live.mean()), abs=1e-5)
    assert trainer.value_moments.std == pytest.approx(float(live.std(correction=0)), rel=1e-4)


def test_an_iteration_that_drops_every_row_leaves_the_moments_alone(make: Make) -> None:
    trainer = make("ppo-xu", "select.drop_truncated=true", "rollout.max_tokens=1")
    first = weights(present(trainer.critic))
    assert len(trainer.iterate().rows) == 0
    assert trainer.value_moments.weight == 0
    assert_same(weights(present(trainer.critic)), first)


SAME_RETURNS = [
    ("ppo", ()),
    ("ppo", ("gae.gamma=0.9",)),
    ("ppo-max", ("kl.coefficient=1", "critic.init=reward-model")),
    *[(kind, ("token_reward.weight=0.5",)) for kind in ("rto", "semi-rto", "ddpo", "rs-ppo")],
    ("rto", ("token_reward.weight=0.5", "token_reward.clip=0.2", "gae.gamma=0.9", "kl.coefficient=1")),
    ("semi-rto", ("token_reward.weight=0.5", "rollout.temperature=0.7")),
]


@pytest.mark.parametrize(("method", "more"), SAME_RETURNS, ids=name_of)
def test_a_critic_is_pretrained_on_the_returns_that_rl_begins_with(
    before: dict[str, StageFolder], tmp_path: Path, method: str, more: tuple[str, ...]
) -> None:
    settings = tiny_method(method, *more, shared=(*SMALL, "rollout.max_tokens=25"))
    here = context(before, tmp_path, settings)
    trainer, _ = assemble(here)
    done = trainer.iterate()
    taught = value_targets(done.batch, token_reward_models(here), settings)
    torch.testing.assert_close(taught.returns, done.rewards.monte_carlo, atol=1e-4, rtol=1e-4)
    dense = trainer.settings.token_reward.kind != "none"
    plain = torch.where(done.batch.response_mask, done.batch.scores[:, None], 0.0)
    if trainer.settings.gae.gamma == 1:
        assert torch.allclose(taught.returns, plain, atol=1e-4) != dense


def test_bootstrapped_responses_have_no_return_to_measure_the_critic_against(make: Make) -> None:
    given = ("rollout.prompts=24", "gae.lambda_critic=1", "critic.update_every=never")
    plain, booted = (make("ppo", *(n for n in given if "lambda" not in n), *more) for more in ((), BOOTSTRAP))
    one, other = plain.iterate(), booted.iterate()
    assert torch.equal(one.rows_with_return, one.rows)
    assert torch.equal(other.rows_with_return, (~other.batch.truncated).nonzero()[:, 0])
    assert 0 < len(other.rows_with_return) < len(other.rows)
    part = (present(other.outputs.values)[other.rows_with_return], other.rewards.monte_carlo[other.rows_with_return])
    wanted = value_metrics(*part, other.batch.response_mask[other.rows_with_return])
    assert {name: other.metrics[name] for name in wanted} == wanted
    assert one.metrics["value/value_bias"] != other.metrics["value/value_bias"]
    cut = other.batch.truncated
    assert_same(one.advantages.raw[~cut], other.advantages.raw[~cut])
    assert not torch.equal(one.advantages.raw[cut], other.advantages.raw[cut])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_only_advantages_with_room_for_it_are_bootstrapped(make: Make, estimator: str) -> None:
    """A study's base may ask for it beside arms that bootstrap nothing."""
    settings = tiny_method("ppo", shared=(*SMALL, *BOOTSTRAP)).model_copy(
        update={"advantage": KINDS["advantage"].models[estimator].model_validate({"estimator": estimator})}
    )
    batch = dataclasses.replace(random_batch([2, 3]), truncated=torch.tensor([True, False]))
    known = returns_known(batch, settings).tolist()
    assert known == [estimator not in ("gae", "td", "q"), True]


# ---- VinePPO ----


def steps_of(done: Iteration) -> list[list[float]]:
    """Each response's advantages, one a step."""
    raw, segments, lengths = done.advantages.raw, present(done.steps).segments, done.batch.lengths.tolist()
    found = []
    for row, length in enumerate(lengths):
        kinds = segments[row, :length]
        advantages = [raw[row, :length][kinds == step] for step in range(int(kinds.max()) + 1)]
        assert all(bool((own == own[0]).all()) for own in advantages)  # one for all tokens of a step
        found.append([float(own[0]) for own in advantages])
    return found


@pytest.mark.parametrize("more", [(), ("vine.max_steps=2",), ("vine.max_steps=2", "vine.cap=first")], ids=str)
def test_the_advantages_of_a_response_steps_add_up_to_its_score_less_the_prompts_value(
    make: Make, more: tuple[str, ...]
) -> None:
    done = make("vineppo", "rollout.max_tokens=20", *more).iterate()
    added = torch.tensor([sum(own) for own in steps_of(done)])
    torch.testing.assert_close(added, done.batch.scores - present(done.steps).step_values[:, 0], atol=1e-5, rtol=0)
    assert max(map(len, steps_of(done))) > 1
    if more == ("vine.max_steps=2",):
        assert max(map(len, steps_of(done))) == 2


def test_steps_beyond_the_cap_get_nothing_and_the_last_before_it_all_that_is_left(make: Make) -> None:
    done = make("vineppo", "rollout.max_tokens=25", "vine.max_steps=2", "vine.cap=first").iterate()
    longer = [(row, own) for row, own in enumerate(steps_of(done)) if len(own) > 2]
    assert longer
    for row, own in longer:
        assert own[2:] == [0.0] * len(own[2:])
        assert own[1] == pytest.approx(float(done.batch.scores[row] - present(done.steps).step_values[row, 1]))


def test_responses_to_one_question_share_the_value_of_their_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo", "vine.samples=3").iterate()
    start = present(done.steps).step_values[:, 0]
    for group in done.batch.group.unique():
        assert len(set(start[done.batch.group == group].tolist())) == 1
    (_, stems, points, _), _, _ = calls[0]
    states = [tuple(stems[point.stem][: point.length]) for point in points]
    assert len(points) == 3 * len(set(states))
    assert len(set(states)) < len(present(done.steps).at)


def test_continuations_start_from_the_sampled_token_ids_and_keep_within_the_limit(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo").iterate()
    (_, stems, points, sampling), _, made = calls[0]
    assert list(stems) == [(*r.prompt_tokens, *r.generation.tokens) for r in done.rollouts]
    begun = {(row, len(done.rollouts[row].prompt_tokens) + offset) for row, offset in present(done.steps).at}
    assert {(point.stem, point.length) for point in points} <= begun
    for point, continuation in zip(points, made, strict=True):
        so_far = point.length - len(done.rollouts[point.stem].prompt_tokens)
        assert so_far + point.limit == sampling.max_tokens == 10
        assert so_far + len(continuation.tokens) <= 10


def test_auxiliary_samples_leave_the_batch_as_it_is(make: Make) -> None:
    few, many = (make("vineppo", f"vine.samples={samples}").iterate() for samples in (1, 7))
    for field in dataclasses.fields(RolloutBatch):
        assert_same(getattr(few.batch, field.name), getattr(many.batch, field.name))
    assert few.metrics["cost/backward_tokens"] == many.metrics["cost/backward_tokens"]
    assert few.metrics["cost/generated_tokens"] < many.metrics["cost/generated_tokens"]
    assert not torch.equal(few.advantages.final, many.advantages.final)


def test_a_states_value_is_the_mean_score_of_the_responses_that_go_on_from_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo", "vine.samples=3", "rollout.max_tokens=20").iterate()
    (_, stems, points, _), _, made = calls[0]
    decode = make_task(tiny().task).tokenizer().decode
    scores: dict[tuple[int, ...], list[float]] = {}
    for point, continuation in zip(points, made, strict=True):
        response = (*stems[point.stem][: point.length], *continuation.tokens)[
            len(done.rollouts[point.stem].prompt_tokens) :
        ]
        words = decode(response, skip_special_tokens=True).split()
        scores.setdefault(tuple(stems[point.stem][: point.length]), []).append(1.0 if len(words) % 2 else -1.0)
    assert {len(own) for own in scores.values()} == {3}
    for (row, offset), value in present(done.steps).at.items():
        own = scores[(*done.rollouts[row].prompt_tokens, *done.rollouts[row].generation.tokens[:offset])]
        assert value == pytest.approx(sum(own) / 3, abs=1e-6)


def test_where_every_continuation_is_right_no_step_is_better_than_another(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    done = make("vineppo").iterate()
    assert set(present(done.steps).at.values()) == {1.0}
    assert not bool(done.advantages.raw.any())


# ---- ESPO ----


def test_a_threshold_of_zero_leaves_one_policy_update_and_all_of_the_critics(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make("espo", "early_stop.threshold=0")
    critic = spy(monkeypatch, room, "update_critic")
    for iteration in range(1, 3):
        told = trainer.iterate().metrics
        assert told["policy/updates"] == 1
        assert told["policy/deviation"] < 1e-4  # it is still the policy that sampled
        assert trainer.policy_optimiser.taken == 8 * iteration  # 4 epochs of 2 minibatches: the rate falls as planned
        assert len(critic) == 8 * iteration
    assert trainer.policy_optimiser.total_steps == 32
    assert trainer.policy_optimiser.learning_rate == pytest.approx(0.003 * 0.5)


@pytest.mark.parametrize("scope", ["tokens", "sequences", "high-entropy-tokens"])
def test_updates_end_with_the_first_that_saw_too_much(make: Make, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    trainer = make("espo", f"early_stop.deviation={scope}", "early_stop.threshold=0.02", "policy.learning_rate=0.01")
    calls = spy(monkeypatch, room, "update_policy")
    trainer.iterate()
    seen = [result.deviation for _, _, result in calls]
    assert 1 < len(seen) < 8
    assert seen[-1] > 0.02
    assert max(seen[:-1]) <= 0.02
    trainer.iterate()
    assert len(calls) > len(seen)  # the next iteration begins anew


def test_a_larger_rate_stops_earlier(make: Make) -> None:
    updates = [
        make("espo", "early_stop.threshold=0.02", f"policy.learning_rate={rate}").iterate().metrics["policy/updates"]
        for rate in (1e-4, 0.005, 0.05)
    ]
    assert updates == sorted(updates, reverse=True)
    assert updates[0] == 8 > updates[2]


# ---- DPO ----


def test_pairs_of_a_right_and_a_wrong_response_stay_together(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("dpo", "rollout.prompts=8", "policy.minibatches=3", "policy.epochs=2")
    calls = spy(monkeypatch, room, "update_policy")
    done = trainer.iterate()
    assert len(calls) == 6
    for (_, _, part, *_), _, _ in calls:
        assert part.correct.tolist() == [True, False] * (len(part.correct) // 2)
        assert torch.equal(part.group[::2], part.group[1::2])
    assert sum(len(arguments[2].scores) for arguments, _, _ in calls) == 2 * len(done.rows)
    right, wrong = int(done.batch.correct.sum()), int((~done.batch.correct).sum())
    assert 0 < len(done.rows) <= 2 * min(right, wrong)


def test_dpo_goes_on_learning_from_responses_of_the_first_policy(make: Make, before: dict[str, StageFolder]) -> None:
    trainer = make("dpo", "policy.learning_rate=0.02")
    first = plainly(loading.load_policy(before["cold-start"].path / "policy"))
    for _ in range(3):
        done = trainer.iterate()
        at_first = read_logprobs(first, done.batch, temperature=1.0, max_tokens=2000)
        torch.testing.assert_close(done.batch.old_logprobs, at_first, atol=1e-4, rtol=1e-4)
        assert done.outputs.ref_logprobs is not None
        kept = done.rows
        torch.testing.assert_close(done.outputs.ref_logprobs[kept], at_first[kept], atol=1e-4, rtol=1e-4)
    now = read_logprobs(trainer.policy, done.batch, temperature=1.0, max_tokens=2000)
    assert float((now - at_first).abs().max()) > 0.01


def test_iterative_dpo_renews_sampler_and_reference_every_so_often(make: Make) -> None:
    trainer = make("dpo-iter", "rollout.refresh_every=2", "reference.refresh_every=2")
    policies = [weights(trainer.policy)]
    for iteration in range(1, 5):
        trainer.iterate()
        policies.append(weights(trainer.policy))
        of_last_refresh = policies[iteration - iteration % 2]
        assert_same(weights(trainer.models.rollout_policy), of_last_refresh)
        assert_same(weights(present(trainer.reference).policy), of_last_refresh)
    assert len({float(policy.sum()) for policy in policies}) == 5
    done = trainer.iterate()
    torch.testing.assert_close(
        done.batch.old_logprobs,
        read_logprobs(trainer.models.rollout_policy, done.batch, temperature=1.0, max_tokens=2000),
        atol=1e-4,
        rtol=1e-4,
    )  # it is the refreshed one that answers


# ---- references and rewards ----


def test_an_averaged_reference_nears_a_policy_that_stays_by_the_closed_form() -> None:
    start, target = new_policy(), new_policy(seed=1)
    first, last = weights(start), weights(target)
    reference = Reference(start, ReferenceSettings(ema=0.3))
    for n in range(1, 6):
        reference.follow(target, n)
        torch.testing.assert_close(
            weights(reference.policy), first + (1 - 0.7**n) * (last - first), rtol=1e-5, atol=1e-6
        )


def test_a_frozen_reference_stays_whatever_the_policy_does(make: Make) -> None:
    trainer = make("grpo")
    first = weights(present(trainer.reference).policy)
    for _ in range(2):
        trainer.iterate()
    assert_same(weights(present(trainer.reference).policy), first)
    assert present(trainer.reference).state_dict() is None


def scored(scores: list[float], lengths: list[int], truncated: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor(scores), torch.tensor(lengths), torch.tensor(truncated)


def test_scores_are_cut_punished_normalised_and_clipped_in_this_order() -> None:
    settings = RewardSettings(
        truncated=0.0, overlong_share=0.2, overlong_penalty=0.5, normalise="standardise", clip=1.1
    )
    shaping = Shaping(settings, limit=10)
    raw = scored([1.0, -1.0, 1.0, 1.0], [5, 10, 9, 8], [False, True, False, False])
    plain = shaping.plain(*raw)
    assert plain.tolist() == [1.0, -0.5, 0.75, 1.0]  # the cut one is worth 0, less the whole punishment
    shaping = dataclasses.replace(shaping, moments=shaping.moments.updated(plain))
    mean, deviation = 2.25 / 4, (((7 / 16) ** 2 * 2 + (17 / 16) ** 2 + (3 / 16) ** 2) / 4) ** 0.5
    wanted = [(x - mean) / deviation for x in plain.tolist()]
    assert min(wanted) < -1.1
    assert shaping.shape(*raw).tolist() == pytest.approx([wanted[0], -1.1, wanted[2], wanted[3]], rel=1e-5)


def test_rewards_are_normalised_by_all_that_was_seen_this_batch_included(make: Make) -> None:
    trainer = make("ppo-max", "reward.clip=none", "reward.correct=3", "reward.wrong=-2")
    seen: list[float] = []
    for _ in range(3):
        done = trainer.iterate()
        scores = verdict_scores(done.rollouts, trainer.settings.reward)
        seen += scores.tolist()
        everything = torch.tensor(seen)
        wanted = (scores - everything.mean()) / everything.std(correction=0)
        torch.testing.assert_close(done.batch.scores, wanted, rtol=1e-4, atol=1e-5)
    assert trainer.shaping.moments.count == 36


# ---- going on ----

STATEFUL = [
    ("ppo-xu", ("reference.ema=0.2",)),
    ("ppo-max", ()),
    ("dpo-iter", ("rollout.refresh_every=3", "reference.refresh_every=3", "steps=6")),
    ("vineppo", ()),
    ("espo", ("early_stop.threshold=0.01",)),
    ("cppo", ()),
    ("dapo", ()),
    ("dvpo", ("critic.update_every=3",)),
]
CLOCKS = ("time/", "system/", "cost/elapsed_s", "cost/peak_memory_mb")


class Killed(BaseException):
    """Stands for SIGKILL."""


def told(path: Path) -> list[dict[str, Any]]:
    records = []
    for record in read_journal(path / "journal.jsonl"):
        del record["time"]
        if record["kind"] == "metrics":
            record["values"] = {k: v for k, v in record["values"].items() if not k.startswith(CLOCKS)}
        records.append(record)
    return records


@pytest.mark.parametrize(("method", "more"), STATEFUL, ids=name_of)
def test_killed_and_resumed_is_straight_through(
    before: dict[str, StageFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, more: tuple[str, ...]
) -> None:
    settings = tiny_method(method, *more, shared=SMALL)
    contexts = [context(before, tmp_path / name, settings) for name in ("straight", "killed")]
    rl(contexts[0])
    iterate = Trainer.iterate

    def mortal(self: Trainer) -> Iteration:
        done = iterate(self)
        if self.step == settings.steps - 1:  # one iteration after the last checkpoint
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "iterate", mortal)
        with pytest.raises(Killed):
            rl(contexts[1])
    rl(contexts[1])
    straight, killed = (made.folder.path for made in contexts)
    assert told(straight) == told(killed)
    for file in straight.rglob("*.safetensors"):
        assert file.read_bytes() == (killed / file.relative_to(straight)).read_bytes()


# ---- one response whatever the micro-batches ----


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("cppo", ("select.scope=batch", "select.refill=false")),
        ("cppo", ("select.scope=question", "select.refill=false")),
        ("ppo", ("advantage.whiten=batch",)),
        ("ppo", ("advantage.whiten=minibatch", "advantage.clip=0.8")),
        ("vapo", ("advantage.whiten=batch",)),
        ("reinforce++", ()),
        ("espo", ("early_stop.threshold=0.005",)),
        ("espo", ("early_stop.deviation=sequences", "early_stop.threshold=0.005")),
        ("espo", ("early_stop.deviation=high-entropy-tokens", "early_stop.threshold=0.005")),
        ("dpo", ()),
        ("gspo", ()),
    ],
    ids=name_of,
)
def test_whitening_pruning_and_stopping_do_not_see_micro_batches(
    make: Make, method: str, more: tuple[str, ...]
) -> None:
    found = []
    for size in (1, 40, 100_000):
        trainer = make(method, *more, f"micro_batch_tokens={size}")
        done = trainer.iterate()
        numbers = {k: v for k, v in done.metrics.items() if k.startswith(("policy/", "advantage/", "select/"))}
        numbers.pop("policy/preference_accuracy", None)  # on-policy all margins are 0, but for rounding
        found.append((done, numbers, trainer.policy_optimiser.taken))
    (first, numbers, taken), *others = found
    for other, its_numbers, its_taken in others:
        assert torch.equal(other.rows, first.rows)
        torch.testing.assert_close(other.advantages.final, first.advantages.final, rtol=1e-3, atol=1e-4)
        assert its_numbers == pytest.approx(numbers, rel=2e-2, abs=1e-4)
        assert (its_taken, its_numbers.get("policy/updates")) == (taken, numbers.get("policy/updates"))


def test_minibatch_whitening_is_of_each_update_by_itself_and_comes_before_the_clip(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip in ("none", "0.6"):
        calls = spy(monkeypatch, room, "update_policy")
        make("ppo", "advantage.whiten=minibatch", f"advantage.clip={clip}").iterate()
        for (_, _, part, advantages, *_), _, _ in calls:
            live = advantages[part.response_mask]
            if clip == "none":
                assert float(live.mean()) == pytest.approx(0, abs=1e-5)
                assert float(live.std()) == pytest.approx(1, abs=1e-4)
                assert float(live.abs().max()) > 0.6
            else:
                assert float(live.abs().max()) == pytest.approx(0.6)


def test_batch_whitening_sees_every_row_trained_on_and_no_other(make: Make) -> None:
    done = make("ppo", "advantage.whiten=batch", "select.prune_rate=0.5").iterate()
    part = done.batch.take(done.rows)
    width = part.response_mask.shape[1]
    wanted = whiten(done.advantages.raw[done.rows][:, :width], part.response_mask)
    torch.testing.assert_close(done.advantages.final[done.rows][:, :width], wanted)
    assert float(wanted[part.response_mask].mean()) == pytest.approx(0, abs=1e-5)


# ---- the truth ----


@pytest.mark.parametrize("method", ["ppo", "vineppo", "dvpo"])
def test_the_table_of_true_values_has_what_training_used(make: Make, method: str) -> None:
    record = ("record.truth_every=1", "record.truth_responses=5", "record.truth_samples=6")
    done = make(method, *record, "rollout.max_tokens=25").iterate()
    table = present(done.true_values)
    assert {len(column) for column in table.values()} == {len(table["answer"])}
    responses = sorted(set(table["answer"]))
    assert len(responses) == 5
    for row, position, fraction, truth, estimate in zip(
        table["answer"], table["position"], table["fraction"], table["truth"], table["estimate"], strict=True
    ):
        assert fraction == position / int(done.batch.lengths[row])
        assert 0 <= fraction < 1
        assert -1 <= truth <= 1
        assert (6 * (truth + 1) / 2) == pytest.approx(round(6 * (truth + 1) / 2), abs=1e-5)  # a share of 6 responses
        if method == "vineppo":
            used = present(done.steps).at[row, position]
        else:
            used = float(present(done.outputs.values)[row, position])
        assert estimate == pytest.approx(used, abs=1e-6)
    starts = make(method).sampler.step_starts([rollout.generation.tokens for rollout in done.rollouts])
    assert all(position in starts[row] for row, position in zip(table["answer"], table["position"], strict=True))
    assert [place for place in zip(table["answer"], table["position"], strict=True) if place[1] == 0] == [
        (row, 0) for row in responses
    ]


@pytest.mark.parametrize("method", ["ppo", "vineppo"])
def test_the_truth_is_compared_in_rows_that_were_trained_on(make: Make, method: str) -> None:
    """Of others no value was read: what would stand there is 0."""
    record = ("record.truth_every=1", "record.truth_responses=4", "record.truth_samples=2")
    done = make(method, *record, "select.drop_truncated=true", "rollout.max_tokens=6", "rollout.prompts=12").iterate()
    kept = done.rows.tolist()
    assert len(kept) < len(done.rollouts)
    wanted = min(4, len(kept))
    table = present(done.true_values)
    assert sorted(set(table["answer"])) == [kept[i * len(kept) // wanted] for i in range(wanted)]
    assert 0.0 not in table["estimate"] or method == "vineppo"


def test_no_truth_is_measured_where_no_row_is_trained_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "choose", lambda batch, *rest: choose(batch, *rest)[:0])
    assert make("ppo", "record.truth_every=1", "record.truth_samples=2").iterate().true_values is None


def test_truth_is_measured_when_asked_for(make: Make) -> None:
    trainer = make("ppo", "record.truth_every=2", "record.truth_samples=2", "record.truth_responses=1")
    assert [trainer.iterate().true_values is not None for _ in range(3)] == [True, False, True]


def test_the_truth_is_the_mean_score_of_continuations(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of responses judged by their first word alone, every state beyond it has its response's score as true value."""
    decode = make_task(tiny().task).tokenizer().decode

    def by_first_word(self: DigitsTask, text: str, prompt: Prompt) -> Verdict:
        return Verdict.CORRECT if text.split()[:1] and text.split()[0].isdigit() else Verdict.WRONG

    monkeypatch.setattr(DigitsTask, "verify", by_first_word)
    record = ("record.truth_every=1", "record.truth_responses=12", "record.truth_samples=40")
    done = make("ppo", *record, "rollout.max_tokens=25").iterate()
    table = present(done.true_values)
    later = 0
    for row, position, truth in zip(table["answer"], table["position"], table["truth"], strict=True):
        if decode(done.rollouts[row].generation.tokens[:position], skip_special_tokens=True):
            assert truth == (1.0 if done.rollouts[row].verdict is Verdict.CORRECT else -1.0)
            later += 1
        else:
            assert -1 < truth < 1
    assert later > 5


# ---- updates that go too far are told ----

FAR = "its updates moved the policy by "


@pytest.mark.parametrize("method", ["vcppo", "grpo", "dpo", "espo"])
def test_an_absurd_rate_warns_and_is_counted(make: Make, capsys: pytest.CaptureFixture[str], method: str) -> None:
    made = make(method, "policy.learning_rate=0.3", "guard.max_ratio=1e30", "guard.kl_alarm=0.05")
    told = [made.iterate().metrics for _ in range(2)]
    said = [line for line in capsys.readouterr().err.splitlines() if FAR in line]
    assert told[0]["policy/kl_alarm"] == 1.0
    assert told[0]["policy/update_kl"] > 0.05
    assert said[0] == (
        f"iteration 0: its updates moved the policy by {told[0]['policy/update_kl']:.3g} nats a token, guard.kl_alarm "
        "is 0.05: such steps destroy what it knows; lower policy.learning_rate (0.3) or policy.epochs, or raise "
        "policy.warmup_steps"
    )


@pytest.mark.parametrize("method", METHODS)
def test_no_method_warns_at_a_rate_that_suits_it(make: Make, capsys: pytest.CaptureFixture[str], method: str) -> None:
    made = make(method, "policy.learning_rate=0.0003")
    told = [made.iterate().metrics for _ in range(2)]
    assert [metrics["policy/kl_alarm"] for metrics in told] == [0.0, 0.0]
    assert FAR not in capsys.readouterr().err


def test_it_warns_again_only_where_it_is_twice_as_bad(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, moves = make("grpo"), iter([0.04, 0.06, 0.07, 0.13, 0.2, 0.27, 0.01])
    monkeypatch.setattr(alarm, "update_kl", lambda updates: next(moves))
    alarms = [made.iterate().metrics["policy/kl_alarm"] for _ in range(7)]
    said = [line for line in capsys.readouterr().err.splitlines() if FAR in line]
    assert alarms == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert [line.split(":")[0] for line in said] == ["iteration 1", "iteration 3", "iteration 5"]


def test_a_single_update_has_nothing_to_measure(make: Make) -> None:
    told = make("grpo", "policy.minibatches=1").iterate().metrics
    assert not {"policy/kl_alarm", "policy/update_kl"} & told.keys()


def test_how_far_updates_moved_the_policy_is_beyond_where_they_began() -> None:
    """A sampler that stays behind is far from the policy before the first of them."""
    update = PolicyUpdate(0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0)
    kls = [0.5, 0.53, 0.75, 0.625]
    assert update_kl([dataclasses.replace(update, approx_kl=kl) for kl in kls]) == 0.25
    assert update_kl([update]) == update_kl([]) == 0.0


@pytest.mark.parametrize(
    ("deviation", "drifted"), [(None, False), (0.1, False), (0.25, False), (0.3, True), (float("nan"), True)]
)
def test_a_policy_has_drifted_beyond_a_threshold_or_where_nothing_can_be_said(
    deviation: float | None, drifted: bool
) -> None:
    update = PolicyUpdate(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, deviation=deviation)
    assert Updates([update], []).drifted_beyond(0.25) == drifted
    assert not Updates([], []).drifted_beyond(0.25)
