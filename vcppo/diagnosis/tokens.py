"""Responses as token ids: those that were logged, or text by a tokenizer, as one model is to read them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jinja2.exceptions import TemplateError
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from vcppo.diagnosis.responses import Dump, LoggedResponse
from vcppo.errors import CheckpointError, DataError
from vcppo.types import TokenBatch

COMPARED = 16  # responses whose ids and text are compared to tell whether a tokenizer wrote them


@dataclass(frozen=True)
class Tokenized:
    """The responses of a dump that one model can read. N of them, each with a prompt of a token or more."""

    rows: tuple[int, ...]  # [N] which of the dump's responses
    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]  # a token or more each
    notes: tuple[str, ...] = ()

    @property
    def total_lengths(self) -> torch.Tensor:
        """[N] int64: tokens of each prompt with its response."""
        return torch.tensor([len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)])

    def batch(self, members: Sequence[int]) -> TokenBatch:
        """The batch of these, by their places among the N."""
        whole = [torch.tensor(self.prompts[i] + self.responses[i]) for i in members]
        lengths = torch.tensor([len(self.responses[i]) for i in members])
        return TokenBatch(
            input_ids=pad_sequence(whole, batch_first=True),
            prompt_lengths=torch.tensor([len(self.prompts[i]) for i in members]),
            response_mask=torch.arange(int(lengths.max())) < lengths[:, None],
        )

    def take(self, members: Iterable[int], *notes: str) -> "Tokenized":
        """These alone, with more notes."""
        selected = list(members)
        return Tokenized(
            rows=tuple(self.rows[i] for i in selected),
            prompts=tuple(self.prompts[i] for i in selected),
            responses=tuple(self.responses[i] for i in selected),
            notes=self.notes + notes,
        )


def tokenize(dump: Dump, tokenizer: PreTrainedTokenizerFast, *, use_ids: bool) -> Tokenized:
    """Return every response that has a token.

    The end-of-sequence token closes a response that is text, unless it was truncated or closes with one: the state
    after the whole text, where ending is chosen, has a value too. Which token is appended does not matter to any value.

    Args:
        use_ids: logged token ids are of this tokenizer; else text is used in their place.
    Raises:
        DataError: there are no responses, or one has no text or no prompt.
        CheckpointError: prompts are messages, and the tokenizer has no chat template, or one that fails.
    """
    if not dump.responses:
        raise DataError(f"{dump.source}: no responses there, expected at least one")
    prompts = _prompts(dump, tokenizer, use_ids=use_ids)
    responses, closed = _responses(dump, tokenizer, use_ids=use_ids)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    tokenized = Tokenized(tuple(range(len(prompts))), tuple(ids or (first,) for ids in prompts), tuple(responses))
    selected = [i for i, response in enumerate(responses) if response]
    notes = {
        "responses are text; an end-of-sequence token closes them": closed,
        "responses have no prompt and are read without one": sum(not ids for ids in prompts),
        "responses have no token and are left out": len(responses) - len(selected),
    }
    return tokenized.take(selected, *(f"{n:,} of {len(responses):,} {said}" for said, n in notes.items() if n))


def within(tokenized: Tokenized, limit: int | None, what: str) -> Tokenized:
    """Leave out what is longer than a context of `limit` tokens: a response that is cut would be another one.

    Raises:
        DataError: nothing fits.
    """
    lengths = tokenized.total_lengths.tolist()
    selected = [i for i, length in enumerate(lengths) if limit is None or length <= limit]
    if len(selected) == len(lengths):
        return tokenized
    line = (
        f"{len(lengths) - len(selected):,} of {len(lengths):,} responses do not fit the {limit:,} tokens that {what} "
        f"can read, the longest prompt with its response has {max(lengths):,}"
    )
    if not selected:
        raise DataError(f"{line}; expected some that fit")
    return tokenized.take(selected, f"{line}; they are left out, numbers are of the others")


def writes(tokenizer: PreTrainedTokenizerFast, dump: Dump) -> bool | None:
    """True where a tokenizer decodes the dump's ids to its text, in most of some responses; None if none has both."""
    both = [response for response in dump.responses if response.tokens and response.text is not None][:COMPARED]
    if not both:
        return None
    same = sum(decode(response.tokens, tokenizer).strip() == _bare(response.text, tokenizer) for response in both)
    return 2 * same > len(both)


def same_vocabulary(one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast) -> bool:
    """True where every id is the same token to both."""
    return one is other or one.get_vocab() == other.get_vocab()


def decode(ids: Sequence[int] | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """Text of ids without special tokens; "" of ids that the tokenizer does not know."""
    if not ids or max(ids) >= len(tokenizer) or min(ids) < 0:
        return ""
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _bare(text: str | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """Text without special tokens, which some logs keep, and without blanks at its ends, which some cut."""
    for special in tokenizer.all_special_tokens:
        text = (text or "").replace(special, "")
    return (text or "").strip()


def _prompts(dump: Dump, tokenizer: PreTrainedTokenizerFast, *, use_ids: bool) -> list[tuple[int, ...]]:
    tokenized: list[tuple[int, ...]] = []
    texts: dict[int, str] = {}
    for number, response in enumerate(dump.responses):
        if use_ids and response.prompt_tokens:
            tokenized.append(tuple(response.prompt_tokens))
            continue
        tokenized.append(())
        if response.messages is not None:
            texts[number] = _rendered(response, tokenizer, dump)
        elif response.prompt:
            texts[number] = response.prompt
        elif response.prompt_tokens:
            raise DataError(
                f"{_where(dump, response)}: its prompt is token ids alone, which are not of this model's tokenizer; "
                "expected text"
            )
    if dump.encode is not None:
        asked = [number for number in texts if dump.responses[number].messages is None]
        for number, ids in zip(asked, dump.encode([texts[number] for number in asked], tokenizer), strict=True):
            tokenized[number] = ids
            del texts[number]
    specials = tokenizer.all_special_tokens
    opened = {  # a template writes special tokens itself, and some logs keep them
        number
        for number, text in texts.items()
        if dump.responses[number].messages is not None or any(special in text for special in specials)
    }
    for numbers, special in (([*opened], False), ([number for number in texts if number not in opened], True)):
        if numbers:
            encoded = tokenizer([texts[i] for i in numbers], add_special_tokens=special, verbose=False)["input_ids"]
            for number, ids in zip(numbers, encoded, strict=True):
                tokenized[number] = tuple(ids)
    return tokenized


def _rendered(response: LoggedResponse, tokenizer: PreTrainedTokenizerFast, dump: Dump) -> str:
    name = tokenizer.name_or_path or "the model"
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{name}: its tokenizer has no chat template, and {_where(dump, response)} has a prompt of messages; "
            "expected a tokenizer with one, or prompts as text"
        )
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in response.messages or ()], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{name}: its chat template fails on {_where(dump, response)} ({error})") from None
    return text


def _responses(dump: Dump, tokenizer: PreTrainedTokenizerFast, *, use_ids: bool) -> tuple[list[tuple[int, ...]], int]:
    """([N] ids, the number of those that were closed here)."""
    tokenized: list[tuple[int, ...]] = []
    texts: dict[int, str] = {}
    for number, response in enumerate(dump.responses):
        tokenized.append(tuple(response.tokens) if use_ids and response.tokens is not None else ())
        if use_ids and response.tokens is not None:
            continue
        if response.text is None:
            raise DataError(
                f"{_where(dump, response)}: the response is token ids alone, which are not of this model's tokenizer; "
                "expected text too"
            )
        texts[number] = response.text
    closed = 0
    encoded = tokenizer(list(texts.values()), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    ends = set(tokenizer.all_special_ids)
    for number, ids in zip(texts, encoded, strict=True):
        tokenized[number] = tuple(ids)
        if dump.responses[number].truncated is not True and not (ids and ids[-1] in ends):
            tokenized[number] = (*ids, tokenizer.eos_token_id)
            closed += 1
    return tokenized, closed


def _where(dump: Dump, response: LoggedResponse) -> str:
    return f"{dump.source} line {response.line}" if response.line else dump.source
