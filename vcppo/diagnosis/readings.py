"""Values of a critic at every state of a dump's responses, beside the returns that followed."""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.diagnosis.boundaries import boundaries, shared
from vcppo.diagnosis.responses import Dump, LoggedResponse, Reading
from vcppo.diagnosis.stored_values import StoredValues
from vcppo.diagnosis.tokens import Tokenized, decode, same_vocabulary, tokenize, within, writes
from vcppo.errors import DataError
from vcppo.models import forward
from vcppo.models.configurations import model_label, positions
from vcppo.models.distributed import world

CHUNK_TOKENS = 2**16  # prompts with responses, read and stored at once: what a kill loses

Progress = Callable[[int, int], None]  # tokens read so far, tokens in all


def read_logged(dump: Dump, name: str = "logged values") -> Reading:
    """Return the dump's own values; responses without any are left out, and a note says so.

    Each was given by the critic of its step, so that responses of several steps have no first state in common.

    Raises:
        DataError: no response has values, or values, tokens and rewards of one differ in number.
    """
    rows = [row for row, response in enumerate(dump.responses) if response.values]
    if not rows:
        raise DataError(f"{dump.source}: no response has values per token; expected some, or a critic to read it")
    values, returns = [], []
    for row in rows:
        response = dump.responses[row]
        logged = torch.tensor(response.values, dtype=torch.float32)
        if response.tokens is not None and len(response.tokens) != len(logged):
            raise DataError(f"{_where(dump, row)}: {len(logged)} values beside {len(response.tokens)} tokens")
        values.append(logged)
        returns.append(_returns(dump, row, len(logged), own_tokens=True))
    missing = len(dump.responses) - len(rows)
    notes: tuple[str, ...] = ()
    if missing:
        notes += (f"{missing:,} of {len(dump.responses):,} responses have no values and are left out",)
    if (steps := len({dump.responses[row].step for row in rows})) > 1:
        notes += (
            f"values of {steps:,} steps are pooled, of a critic that changed between them; where they are read is told "
            "from responses of one step",
        )
    states = [_logged_state(dump.responses[row]) for row in rows]
    tokens = [ids for row in rows if (ids := dump.responses[row].tokens) is not None]
    return _reading(name, dump, rows, values, returns, notes, states, tokens if len(tokens) == len(rows) else None)


def read_critic(
    critic: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    dump: Dump,
    *,
    name: str,
    max_tokens: int,
    logged_tokenizer: PreTrainedTokenizerFast | None = None,
    store: StoredValues | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Return a critic's values of a dump's responses; every process calls this alike.

    Columns are the tokens that were logged, if their ids are the critic's or `logged_tokenizer` is given; else the
    critic's own tokens of the text. Under two tokenizers values are read where both begin a token, and `columns` says
    before which logged tokens that is. Values that are NaN or infinite stay.

    Args:
        critic: prepared for passes. max_tokens: of a micro-batch on each process.
        logged_tokenizer: of the policy that wrote the responses, where it is known.
        store: where finished values are kept, chunk by chunk, and found again.
    Raises:
        DataError: token ids alone of another tokenizer, rewards per token of another one, ids that the critic does not
            know, or no response that it can read.
        CheckpointError: prompts are messages and the tokenizer cannot render them; the store cannot be written.
    """
    own, notes = _own_tokens(dump, tokenizer, logged_tokenizer)
    if logged_tokenizer is None or same_vocabulary(tokenizer, logged_tokenizer):
        tokenized = _readable(critic, tokenize(dump, tokenizer, use_ids=own), dump)
        values = _values(critic, tokenized, max_tokens, store, progress)
        is_logged = [own and dump.responses[row].tokens is not None for row in tokenized.rows]
        returns = [
            _returns(dump, row, len(tokens), own_tokens=logged)
            for row, tokens, logged in zip(tokenized.rows, tokenized.responses, is_logged, strict=True)
        ]
        notes += tokenized.notes
        return _reading(name, dump, tokenized.rows, values, returns, notes, tokenized.prompts, tokenized.responses)
    texts = _as_text(dump, logged_tokenizer)
    tokenized = _readable(critic, tokenize(texts, tokenizer, use_ids=False), dump)
    logged = tokenize(texts, logged_tokenizer, use_ids=True)
    read = set(logged.rows)
    tokenized = tokenized.take(i for i, row in enumerate(tokenized.rows) if row in read)
    values = _values(critic, tokenized, max_tokens, store, progress)
    return _at_shared_boundaries(name, texts, tokenized, values, logged, (tokenizer, logged_tokenizer), notes)


def _own_tokens(
    dump: Dump, tokenizer: PreTrainedTokenizerFast, logged_tokenizer: PreTrainedTokenizerFast | None
) -> tuple[bool, tuple[str, ...]]:
    """(whether logged ids are of the critic's tokenizer, what is to be said of it)."""
    if all(response.tokens is None for response in dump.responses):
        return False, ()
    if logged_tokenizer is not None:
        return same_vocabulary(tokenizer, logged_tokenizer), ()
    agrees = writes(tokenizer, dump)
    if agrees is None:
        return True, ("token ids are taken to be of the critic's tokenizer: there is no text to check them by",)
    if agrees:
        return True, ()
    return False, (
        "the logged token ids are not of the critic's tokenizer: it read the text, and positions count its own tokens",
    )


def _readable(critic: PreTrainedModel, tokenized: Tokenized, dump: Dump) -> Tokenized:
    """Return the responses that fit the critic's context. Raises DataError if none does, or a token is unknown."""
    if not tokenized.rows:
        raise DataError(f"{dump.source}: no response has a token, expected at least one")
    known = critic.get_input_embeddings().num_embeddings
    largest = max(
        max(*prompt, *response) for prompt, response in zip(tokenized.prompts, tokenized.responses, strict=True)
    )
    if largest >= known:
        raise DataError(
            f"{dump.source}: token {largest}, and {model_label(critic)} knows {known} tokens; expected token ids of "
            "its own tokenizer, or text"
        )
    return within(tokenized, positions(critic.config), model_label(critic))


def _values(
    critic: PreTrainedModel,
    tokenized: Tokenized,
    max_tokens: int,
    store: StoredValues | None,
    progress: Progress | None,
) -> list[Tensor]:
    """[N] the values of each response, float32; chunk by chunk, the longest first, stored as they are read."""
    here = world()
    values = {} if store is None else here.from_main(store.read(tokenized) if here.is_main else {})
    lengths = tokenized.total_lengths.tolist()
    total = sum(lengths)
    missing = [i for i, row in enumerate(tokenized.rows) if row not in values]
    read = total - sum(lengths[i] for i in missing)
    if progress is not None:
        progress(read, total)
    for members in _chunks(missing, lengths):
        batch = tokenized.batch(members)
        outputs = forward.gather_outputs(
            critic, batch, max_tokens, lambda part: forward.response_values(critic, part), finite=False
        )
        chunk = {
            tokenized.rows[i]: row[:length].clone()
            for i, row, length in zip(members, outputs, batch.lengths.tolist(), strict=True)
        }
        if store is not None and here.is_main:
            store.write(tokenized, chunk)
        values |= chunk
        read += sum(lengths[i] for i in members)
        if progress is not None:
            progress(read, total)
    return [values[row] for row in tokenized.rows]


def _chunks(members: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Groups of at most CHUNK_TOKENS tokens, the longest members first; the same for any number of processes."""
    chunks: list[list[int]] = []
    filled = CHUNK_TOKENS
    for i in sorted(members, key=lambda i: (-lengths[i], i)):
        if filled + lengths[i] > CHUNK_TOKENS:
            chunks.append([])
            filled = 0
        chunks[-1].append(i)
        filled += lengths[i]
    return chunks


def _as_text(dump: Dump, tokenizer: PreTrainedTokenizerFast) -> Dump:
    """The dump with the text of what is ids alone, or blanks at whose ends were cut, by the tokenizer of the ids."""

    def described(response: LoggedResponse) -> LoggedResponse:
        text = decode(response.tokens, tokenizer)
        if response.text is None or response.text.strip() == text.strip():
            response = replace(response, text=text)
        if response.messages is None and not response.prompt and response.prompt_tokens:
            response = replace(response, prompt=decode(response.prompt_tokens, tokenizer))
        return response

    return replace(dump, responses=tuple(map(described, dump.responses)))


@dataclass(frozen=True)
class _Places:
    """Of one response: logged tokens before which the critic has a value, and its tokens there."""

    logged: list[int]
    own: list[int]


def _at_shared_boundaries(
    name: str,
    texts: Dump,
    tokenized: Tokenized,
    values: Sequence[Tensor],
    logged: Tokenized,
    tokenizers: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
    notes: tuple[str, ...],
) -> Reading:
    """Values on the logged tokens, where both tokenizers begin one."""
    own_tokenizer, logged_tokenizer = tokenizers
    tokens_of = dict(zip(logged.rows, logged.responses, strict=True))
    places, returns, tokens = [], [], 0
    for row, response in zip(tokenized.rows, tokenized.responses, strict=True):
        text = texts.responses[row].text or ""
        begins = boundaries(tokens_of[row], logged_tokenizer, text)
        at = _Places(*shared(begins, boundaries(response, own_tokenizer, text)))
        is_logged = texts.responses[row].tokens is not None
        returns.append(_returns(texts, row, len(begins), own_tokens=is_logged)[at.logged])
        places.append(at)
        tokens += len(begins)
    both = sum(len(at.logged) for at in places)
    note = (
        f"the critic has another tokenizer than the policy: values are read where both begin a token, at {both:,} of "
        f"{tokens:,} tokens ({both / tokens:.0%})"
    )
    reading = _reading(
        name,
        texts,
        tokenized.rows,
        [row[at.own] for row, at in zip(values, places, strict=True)],
        returns,
        (*notes, *tokenized.notes, note),
        tokenized.prompts,
    )
    columns = pad_sequence([torch.tensor(at.logged) for at in places], batch_first=True)
    return replace(reading, columns=columns)


def _returns(dump: Dump, row: int, length: int, *, own_tokens: bool) -> Tensor:
    """[T] float32: the rewards to come from each token on, gamma 1.

    Args:
        own_tokens: the T tokens are those that rewards were logged for.
    Raises:
        DataError: rewards were logged for other tokens, and lie on more than the last one.
    """
    response = dump.responses[row]
    rewards = response.rewards
    if rewards is None:
        return torch.full((length,), response.score, dtype=torch.float32)
    if len(rewards) == length:
        return torch.tensor(rewards, dtype=torch.float64).flip(0).cumsum(0).flip(0).float()
    if own_tokens:
        raise DataError(f"{_where(dump, row)}: {len(rewards)} rewards beside {length} tokens")
    if any(rewards[:-1]):
        raise DataError(
            f"{_where(dump, row)}: {len(rewards)} rewards per token, and the critic's tokenizer makes {length} tokens "
            "of the text; expected token ids with the tokenizer that wrote them, or rewards on the last token alone"
        )
    return torch.full((length,), sum(rewards), dtype=torch.float32)


def _reading(
    name: str,
    dump: Dump,
    rows: Sequence[int],
    values: Sequence[Tensor],
    returns: Sequence[Tensor],
    notes: tuple[str, ...],
    states: Sequence[Hashable],
    tokens: Sequence[Sequence[int]] | None = None,
) -> Reading:
    """Pad rows; `states`: equal where V before the first token is that of one state, by one critic."""
    lengths = torch.tensor([len(row) for row in values])
    problems = [dump.responses[row].problem for row in rows]
    return Reading(
        critic=name,
        values=pad_sequence(list(values), batch_first=True),
        returns=pad_sequence(list(returns), batch_first=True),
        response_mask=torch.arange(int(lengths.max())) < lengths[:, None],
        scores=torch.tensor([dump.responses[row].score for row in rows], dtype=torch.float32),
        problem=_numbered(problems),
        notes=notes,
        rows=torch.tensor(list(rows)),
        tokens=None if tokens is None else pad_sequence([torch.tensor(row) for row in tokens], batch_first=True),
        first_state=_numbered(list(zip(problems, states, strict=True))),
    )


def _logged_state(response: LoggedResponse) -> Hashable:
    """Prompt with all that stands before the response, as it was logged, and the step of training."""
    messages = json.dumps([dict(message) for message in response.messages or ()], sort_keys=True, default=str)
    context = response.prompt or (messages if response.messages else response.prompt_tokens)
    return context, response.step


def _numbered(names: Sequence[Hashable]) -> Tensor:
    """[N] int64: the number of each name, equal names alike."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def _where(dump: Dump, row: int) -> str:
    line = dump.responses[row].line
    return f"{dump.source} line {line}" if line else f"{dump.source} response {row + 1}"
