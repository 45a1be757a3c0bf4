"""A run that is killed goes on to the bit, and no number depends on micro-batches."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_method
from trainers import SMALL, Make, context, name_of, spy, told

from vcppo.maths.advantages import whiten
from vcppo.rl import trainer as room
from vcppo.rl.experience import Iteration
from vcppo.rl.trainer import Trainer
from vcppo.stages.rl import rl
from vcppo.store.cache import StageFolder

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


class Killed(BaseException):
    """Stands for SIGKILL."""


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
