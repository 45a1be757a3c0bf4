"""Pruning, groups worth learning from, preference pairs: small cases by hand, and what must hold for any."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from vcppo.maths.advantages import group_advantages
from vcppo.maths.selection import Keep, Scope, kept_count, mixed_groups, preference_pairs, prune

close = torch.testing.assert_close


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RANKING = torch.tensor([0.1, -5.0, 3.0, 0.2, -0.3, 2.0, 4.0, -1.0])
GROUP = torch.tensor([9, 4, 9, 4, 9, 4, 9, 4])  # 9: .1 3 -.3 4 in rows 0 2 4 6; 4: -5 .2 2 -1 in rows 1 3 5 7


@pytest.mark.parametrize(
    ("keep", "scope", "rows"),
    [
        ("largest", "question", [1, 2, 5, 6]),
        ("smallest", "question", [0, 3, 4, 7]),
        ("signed", "question", [2, 3, 5, 6]),
        ("largest", "batch", [1, 2, 5, 6]),
        ("smallest", "batch", [0, 3, 4, 7]),
        ("signed", "batch", [2, 3, 5, 6]),
    ],
)
def test_half_of_the_responses_by_hand(keep: Keep, scope: Scope, rows: list[int]) -> None:
    assert prune(RANKING, GROUP, rate=0.5, scope=scope, keep=keep, rng=seeded()).tolist() == rows


@pytest.mark.parametrize(("scope", "rows"), [("question", [1, 6]), ("batch", [1, 6])])
def test_three_quarters_gone_by_hand(scope: Scope, rows: list[int]) -> None:
    assert prune(RANKING, GROUP, rate=0.75, scope=scope, keep="largest", rng=seeded()).tolist() == rows


def test_pooled_over_the_batch_a_question_may_lose_everything() -> None:
    ranking, group = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 2.0, -2.0]), torch.tensor([0] * 4 + [1] * 4)
    alone = prune(ranking, group, rate=0.5, scope="question", keep="largest", rng=seeded())
    pooled = prune(ranking, group, rate=0.5, scope="batch", keep="largest", rng=seeded())
    assert (alone.tolist(), pooled.tolist()) == ([0, 1, 6, 7], [4, 5, 6, 7])


@pytest.mark.parametrize("keep", [keep for keep in get_args(Keep) if keep != "random"])
@pytest.mark.parametrize("scope", get_args(Scope))
def test_equal_ranks_fall_in_order_of_position(keep: Keep, scope: Scope) -> None:
    """100 responses: short ones are sorted stably even by a sort that is not."""
    ranking, group = torch.full((100,), -0.5), torch.zeros(100, dtype=torch.long)
    assert prune(ranking, group, rate=0.75, scope=scope, keep=keep, rng=seeded()).tolist() == list(range(25))


def test_half_correct_is_a_tie_which_may_keep_one_sign_only() -> None:
    correct = torch.tensor([1.0] * 8 + [0.0] * 8)
    one = torch.zeros(16, dtype=torch.long)
    ranking = group_advantages(correct, one, torch.ones(16, 1, dtype=torch.bool), scale=True)[:, 0]
    assert prune(ranking, one, rate=0.5, scope="question", keep="largest", rng=seeded()).tolist() == list(range(8))


@pytest.mark.parametrize("keep", get_args(Keep))
@pytest.mark.parametrize("scope", get_args(Scope))
def test_a_rate_of_zero_keeps_every_row_in_its_place(keep: Keep, scope: Scope) -> None:
    close(prune(RANKING, GROUP, rate=0.0, scope=scope, keep=keep, rng=seeded()), torch.arange(8))


@pytest.mark.parametrize("keep", get_args(Keep))
def test_every_question_keeps_its_share_and_at_least_one(keep: Keep) -> None:
    group = torch.tensor([3] * 5 + [1] * 2 + [7])
    kept = prune(torch.arange(8.0), group, rate=0.6, scope="question", keep=keep, rng=seeded())
    assert sorted(group[kept].tolist()) == [1, 3, 3, 7]
    kept = prune(torch.arange(8.0), group, rate=0.6, scope="batch", keep=keep, rng=seeded())
    assert len(kept) == 3


def test_the_share_is_not_cut_by_rounding() -> None:
    """G * (1 - rate) in whole numbers: for no G up to 64 may floating point take one response away."""
    for size in range(1, 65):
        for kept in range(1, size + 1):
            assert kept_count(size, rate=1 - kept / size) == kept
            assert kept_count(size, rate=(size - kept) / size) == kept
    assert [kept_count(16, rate=rate) for rate in (0.5, 0.75, 0.875, 0.9375)] == [8, 4, 2, 1]
    assert [kept_count(10, rate=rate) for rate in (0.6, 0.7, 0.8, 0.9)] == [4, 3, 2, 1]
    assert kept_count(5, rate=0.5) == 2


@pytest.mark.parametrize("keep", ["largest", "smallest", "signed"])
@pytest.mark.parametrize("scope", get_args(Scope))
def test_permuting_the_responses_permutes_the_choice(keep: Keep, scope: Scope) -> None:
    order = torch.randperm(8, generator=seeded(3))
    kept = prune(RANKING, GROUP, rate=0.5, scope=scope, keep=keep, rng=seeded())
    moved = prune(RANKING[order], GROUP[order], rate=0.5, scope=scope, keep=keep, rng=seeded())
    assert sorted(order[moved].tolist()) == kept.tolist()


def test_pruning_questions_apart_or_together_is_the_same() -> None:
    """Scope "question" on a whole batch is the same as on each of two shards of it."""
    ranking, group = torch.randn(64, generator=seeded(1)), torch.arange(64) // 8
    halves = [
        prune(ranking[at], group[at], rate=0.7, scope="question", keep="largest", rng=seeded()) + at.start
        for at in (slice(0, 32), slice(32, 64))
    ]
    close(torch.cat(halves), prune(ranking, group, rate=0.7, scope="question", keep="largest", rng=seeded()))


def test_random_responses_follow_the_generator_and_are_all_as_likely() -> None:
    drawn = [
        prune(RANKING, GROUP, rate=0.5, scope="question", keep="random", rng=seeded(s)).tolist() for s in range(400)
    ]
    assert drawn[7] == prune(RANKING, GROUP, rate=0.5, scope="question", keep="random", rng=seeded(7)).tolist()
    times = torch.tensor(drawn).flatten().bincount(minlength=8)
    assert ((times - 200).abs() < 40).all()  # 400 draws at 1/2: 40 is four standard deviations


def test_only_random_responses_move_the_generator() -> None:
    for keep in get_args(Keep):
        rng = seeded()
        prune(RANKING, GROUP, rate=0.5, scope="question", keep=keep, rng=rng)
        assert torch.equal(rng.get_state(), seeded().get_state()) == (keep != "random")


def test_mixed_groups_hold_right_and_wrong_responses() -> None:
    group = torch.tensor([5, 2, 5, 2, 8, 8, 1])
    correct = torch.tensor([True, True, False, True, False, False, True])
    assert mixed_groups(correct, group).tolist() == [True, False, True, False, False, False, False]


@pytest.mark.parametrize("kind", [True, False])
def test_groups_of_one_kind_are_not_mixed(kind: bool) -> None:
    assert not mixed_groups(torch.full((4,), kind), torch.tensor([0, 0, 3, 3])).any()


def of_groups(pairs: Tensor, group: Tensor) -> list[int]:
    return group[pairs[:, 0]].tolist()


def test_pairs_prefer_a_right_to_a_wrong_response_of_the_same_question() -> None:
    group = torch.tensor([6, 6, 6, 6, 6, 2, 2, 2, 4, 4, 0])
    correct = torch.tensor([1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 0]).bool()
    pairs = preference_pairs(correct, group, rng=seeded())
    assert of_groups(pairs, group) == [2, 6, 6]  # min(1, 2) and min(3, 2); 4 and 0 have one kind only
    close(group[pairs[:, 0]], group[pairs[:, 1]])
    assert correct[pairs[:, 0]].all()
    assert not correct[pairs[:, 1]].any()
    assert pairs.unique().numel() == pairs.numel()  # no response twice


def test_pairs_are_drawn_evenly() -> None:
    """3 right and 2 wrong: 2 pairs, each of the 3 * 2 possible ones 1/3 of the time."""
    group, correct = torch.zeros(5, dtype=torch.long), torch.tensor([True, True, True, False, False])
    counts = torch.zeros(5, 5, dtype=torch.long)
    for seed in range(450):
        for chosen, rejected in preference_pairs(correct, group, rng=seeded(seed)).tolist():
            counts[chosen, rejected] += 1
    assert ((counts[:3, 3:] - 150).abs() < 40).all()  # 450 draws at 1/3: 40 is four standard deviations


def test_pairs_follow_the_generator() -> None:
    correct, group = torch.arange(40) % 2 == 0, torch.arange(40) // 20
    first, again, other = (preference_pairs(correct, group, rng=seeded(s)) for s in (1, 1, 2))
    close(first, again)
    assert not torch.equal(first, other)


def test_no_question_gives_no_pair() -> None:
    assert preference_pairs(torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.long), rng=seeded()).shape == (
        0,
        2,
    )
