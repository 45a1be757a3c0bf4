"""True values beside an iteration: measured when asked for, in the rows that were trained on."""

import pytest
from tiny import tiny
from trainers import Make, present

from vcppo.rl import trainer as room
from vcppo.rl.selection import choose
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Verdict


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
