"""The critic before it learns in RL: the reward model, a saved one, the policy with a fresh head, or a pretrained one.

What it starts from needs scores of the fixed policy's responses, shaped as RL will meet them.
"""

import dataclasses
from typing import Literal, assert_never

from transformers import PreTrainedModel

from vcppo.errors import CheckpointError
from vcppo.maths.diagnostics import fitted_line
from vcppo.models.critic_folders import find_folder
from vcppo.models.critic_kinds import classifier_of
from vcppo.models.distributed import world
from vcppo.models.forward import rescale_values
from vcppo.models.loading import load_config, load_tokenizer
from vcppo.rl.critic_update import read_final_values
from vcppo.rl.pretraining_targets import rows_with_targets
from vcppo.rl.rewards import Shaping, returns_known, score_range
from vcppo.seeding import seed_for
from vcppo.settings.run import RunSettings
from vcppo.stages.context import StageContext
from vcppo.stages.shared.saved_responses import load_responses
from vcppo.store.pretrained_critics import chosen_step, critic_folder
from vcppo.system.files import read_json_or_move, write_json
from vcppo.types import RolloutBatch

LINE_FILE = "scores_line.json"  # in the stage's folder


def start_of_critic(context: StageContext) -> PreTrainedModel:
    """Load the critic before any pretraining: the reward model, a saved critic, the policy with a fresh head, or a new
    network.

    Raises:
        CheckpointError: what was saved is no critic, or does not know all of the policy's tokens.
    """
    settings, chosen = context.settings, context.settings.critic
    assert chosen.init != "exact"  # which is no model
    bounds = score_range(settings.reward, gamma=settings.gae.gamma) if chosen.bounded else None
    match chosen.init:
        case "reward-model":
            critic = context.load_critic(context.earlier["reward-model"].path / "critic", bounds=bounds)
            return fit_scores(critic, context) if settings.fits_reward_model else critic
        case "saved":
            assert chosen.path is not None
            return _refuse_other_tokens(context.load_critic(chosen.path, bounds=bounds), chosen.path, context)
        case "policy":
            seed = seed_for(settings.run_seed, "critic", "head")
            value = _first_value(context, chosen.initial_value)
            return context.load_critic(context.first_policy, head_seed=seed, initial_value=value, bounds=bounds)
        case "new":
            return context.new_critic(chosen, initial_value=_first_value(context, chosen.initial_value), bounds=bounds)
        case _:
            assert_never(chosen.init)


def check_critic(settings: RunSettings) -> None:
    """Check that a critic can be made of the model that is given, before anything is run.

    Raises:
        CheckpointError: transformers has no classifier for it, or it is not there.
    """
    model, made = settings.model, settings.critic.init not in ("saved", "exact")
    if settings.has_value_model and made and model.path is not None:
        config = load_config(model.path, trust_remote_code=model.trust_remote_code)
        classifier_of(config, f"critic.init = {settings.critic.init}, model.path = {model.path}")


def _refuse_other_tokens(critic: PreTrainedModel, path: str, context: StageContext) -> PreTrainedModel:
    known, largest = critic.get_input_embeddings().num_embeddings, max(context.tokenizer.get_vocab().values())
    if largest >= known:
        raise CheckpointError(
            f"{path}: this critic knows {known} tokens, the policy's tokenizer writes token "
            f"{largest}; expected a critic that reads with the policy's tokenizer"
        )
    try:
        theirs = load_tokenizer(find_folder(path).tokenizer, trust_remote_code=context.settings.model.trust_remote_code)
    except CheckpointError:  # saved without one
        return critic
    ours, added = context.tokenizer.get_vocab(), theirs.get_added_vocab()
    for word, number in theirs.get_vocab().items():
        if word not in added and ours.get(word, number) != number:
            raise CheckpointError(
                f"{path}: its tokenizer has {word!r} as token {number}, the policy's as token {ours[word]}; expected a "
                "critic that reads with the policy's tokenizer"
            )
    return critic


def _first_value(context: StageContext, value: float | Literal["mean-score"]) -> float:
    if value != "mean-score":
        return float(value)
    batch = scored_responses(context)
    limit = context.sampling.max_tokens
    return float(batch.scores[rows_with_targets(batch, context.settings, limit)].mean())


def fit_scores(critic: PreTrainedModel, context: StageContext) -> PreTrainedModel:
    """Put a reward model into units of reward: its scores of whole responses are fitted to theirs by least squares.

    Slope and intercept go into its head, in place. What it says of unfinished responses is scaled alike: the error that
    remains is that of a model that has never seen any (arXiv:2503.01491, section 3.1), and no error of units. They stay
    in the stage's folder: of a large model a pass over all responses takes minutes, at every restart.
    """
    path, here = context.folder.path / LINE_FILE, world()
    line = here.from_main(read_json_or_move(path, context.notice) if here.is_main else None)
    if line is None:
        batch = scored_responses(context)
        batch = batch.take(rows_with_targets(batch, context.settings, context.sampling.max_tokens))
        scores = read_final_values(critic, batch, context.settings.micro_batch_tokens)
        line = dict(zip(("slope", "intercept"), fitted_line(scores, batch.scores), strict=True))
        if here.is_main:
            write_json(path, line)
    rescale_values(critic, line["slope"], line["intercept"])
    return critic


def scored_responses(context: StageContext) -> RolloutBatch:
    """Load the fixed policy's responses with their scores shaped; the held-out ones stand last."""
    batch = load_responses(context.earlier["answers"].path)
    return dataclasses.replace(batch, scores=first_shaping(context, batch).of(batch))


def first_shaping(context: StageContext, batch: RolloutBatch | None = None) -> Shaping:
    """Return the shaping of pretraining, and of RL's begin: its moments are of what the critic was pretrained on.

    Args:
        batch: the responses of the earlier stage, if they are at hand.
    """
    settings = context.settings
    shaping = Shaping(settings.reward, context.sampling.max_tokens)
    if settings.reward.normalise == "none" or "answers" not in context.earlier:
        return shaping
    batch = load_responses(context.earlier["answers"].path) if batch is None else batch
    return shaping.updated(batch, returns_known(batch, settings))


def critic_for(context: StageContext) -> tuple[PreTrainedModel, int]:
    """Load the critic that RL starts with; also how many pretraining updates it has had."""
    if "value-pretraining" not in context.earlier:
        critic, step = start_of_critic(context), 0
    else:
        folder, settings = context.earlier["value-pretraining"].path, context.settings.pretrain
        chosen = chosen_step(folder, settings)
        assert chosen is not None
        critic, step = context.load_critic(critic_folder(folder, chosen)), chosen
    if offset := context.settings.critic.offset:
        rescale_values(critic, 1.0, offset)
    return critic, step
