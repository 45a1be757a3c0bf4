"""Value pretraining is exactly so many updates, whatever was asked before and whatever interrupts it."""

from pathlib import Path

import pytest
from pretraining import context, told

from vcppo.models.optimiser import Optimiser
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.context import StageContext
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.pretrained_critics import (
    add_request,
    critic_folder,
    last_moments,
    pretraining_is_done,
    remove_last_moments,
    saved_states,
    saved_steps,
    step_of,
)


def weights(stage_context: StageContext, step: int) -> bytes:
    return (critic_folder(stage_context.folder.path, step) / "model.safetensors").read_bytes()


def test_a_step_count_is_exactly_so_many_updates(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    step = Optimiser.step
    monkeypatch.setattr(Optimiser, "step", lambda self: (taken.append(1), step(self))[1])
    here = context(before, tmp_path, "pretrain.steps=5")
    assert not pretraining_is_done(here.folder.path, here.settings.pretrain)
    assert value_pretraining(here) == {"steps": 5.0}
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    assert len(taken) == 5
    assert saved_steps(here.folder.path) == [5]  # and none of those that were measured on the way


def test_more_asked_for_later_goes_on_and_less_takes_what_is_there(before: Path, tmp_path: Path) -> None:
    straight = context(before, tmp_path / "straight", "pretrain.steps=8")
    value_pretraining(straight)
    first = context(before, tmp_path / "extended", "pretrain.steps=3")
    value_pretraining(first)
    extended = context(before, tmp_path / "extended", "pretrain.steps=8")
    assert extended.folder.path == first.folder.path
    assert not pretraining_is_done(extended.folder.path, extended.settings.pretrain)
    value_pretraining(extended)
    assert saved_steps(extended.folder.path) == [3, 8]
    assert weights(extended, 8) == weights(straight, 8)
    assert told(extended) == told(straight)

    for few in (3, 1):  # neither lies there
        less = context(before, tmp_path / "straight", f"pretrain.steps={few}")
        assert not pretraining_is_done(less.folder.path, less.settings.pretrain)
        journal = told(straight)
        value_pretraining(less)
        assert told(straight) == journal  # the same updates tell nothing twice
        assert pretraining_is_done(straight.folder.path, straight.settings.pretrain)
    assert weights(less, 3) == weights(first, 3)
    alone = context(before, tmp_path / "alone", "pretrain.steps=1")
    value_pretraining(alone)
    assert weights(less, 1) == weights(alone, 1)
    assert saved_steps(straight.folder.path) == [1, 3, 8]
    (state,) = saved_states(straight.folder.path)  # of the last critic alone
    assert state.parent == critic_folder(straight.folder.path, 8)


def test_a_critic_that_another_run_will_want_stays_and_one_of_every_measurement_where_wanted(
    before: Path, tmp_path: Path
) -> None:
    other = context(before, tmp_path, "pretrain.steps=4")
    add_request(other.folder.path, other.settings.pretrain)
    here = context(before, tmp_path, "pretrain.steps=8")
    value_pretraining(here)
    assert saved_steps(here.folder.path) == [4, 8]
    assert pretraining_is_done(other.folder.path, other.settings.pretrain)
    measured = context(before, tmp_path / "all", "pretrain.steps=5", "pretrain.checkpoints=measured")
    assert measured.folder.address.key == here.folder.address.key
    value_pretraining(measured)
    assert saved_steps(measured.folder.path) == [2, 4, 5]
    assert len(saved_states(measured.folder.path)) == 1


def test_killed_anywhere_on_the_way_back_it_goes_on_from_the_last_measurement(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that wants fewer updates trains anew, beside what is there, and loses neither that nor its own way."""
    far = context(before, tmp_path, "pretrain.steps=8")
    value_pretraining(far)
    journal = told(far)
    less = context(before, tmp_path, "pretrain.steps=5")
    step = Optimiser.step
    taken: list[int] = []

    def killed_at_the_fourth(self: Optimiser) -> float:
        if self.taken == 4:
            raise KeyboardInterrupt
        return step(self)

    def counted(self: Optimiser) -> float:
        taken.append(self.taken)
        return step(self)

    monkeypatch.setattr(Optimiser, "step", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        value_pretraining(less)
    monkeypatch.setattr(Optimiser, "step", counted)
    value_pretraining(less)
    assert taken == [4]
    assert told(far) == journal
    assert saved_steps(far.folder.path) == [5, 8]
    assert [step_of(state.parent) for state in saved_states(far.folder.path)] == [8]


def test_without_the_last_moments_more_updates_are_trained_from_the_start_and_logged_once(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = context(before, tmp_path / "straight", "pretrain.steps=8")
    value_pretraining(straight)
    here = context(before, tmp_path / "here", "pretrain.steps=4")
    value_pretraining(here)
    remove_last_moments(here.folder.path)
    journal = told(here)
    assert saved_states(here.folder.path) == []
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    more = context(before, tmp_path / "here", "pretrain.steps=8")
    step = Optimiser.step

    def killed(self: Optimiser) -> float:
        if self.taken == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Optimiser, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        value_pretraining(more)
    assert told(here) == journal  # on which others count
    monkeypatch.undo()
    monkeypatch.setattr(DigitsTaskSettings, "exact_values", False)
    value_pretraining(more)
    assert told(more) == told(straight)
    assert weights(more, 8) == weights(straight, 8)
    assert saved_steps(more.folder.path) == [4, 8]
    assert last_moments(more.folder.path) == 8


def test_a_folder_whose_state_was_never_written_is_not_made(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.steps=4")
    value_pretraining(here)
    whole = told(here)
    (critic_folder(here.folder.path, 4) / "state.pt").unlink()  # killed between the two
    assert not pretraining_is_done(here.folder.path, here.settings.pretrain)
    value_pretraining(here)
    assert told(here) == whole
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
