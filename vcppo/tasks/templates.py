"""Make a prompt of a question: the tokenizer's chat template or bare text, thoughts opened or not."""

from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from vcppo.errors import CheckpointError, ConfigError
from vcppo.settings.task import MathsSettings


def with_instruction(question: str, settings: MathsSettings) -> str:
    """Return the question with the instruction after it."""
    return f"{question}\n\n{settings.instruction}".strip()


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, settings: MathsSettings) -> list[tuple[int, ...]]:
    """Return the token ids of each text in its template, ending where the response begins.

    A chat template writes special tokens itself, so the tokenizer adds none to it; to bare text it adds them.

    Raises:
        ConfigError: the tokenizer has no chat template, or drops the end of a thought from what it decodes.
        CheckpointError: the template or the tokenizer makes nothing of a prompt.
    """
    if settings.think and not _survives_decoding(settings.think_close, tokenizer):
        raise ConfigError(
            f"task.maths.think_close = {settings.think_close}: this tokenizer leaves it out of decoded responses, as a "
            "special token; the end of a thought could not be seen"
        )
    chat = settings.template == "chat"
    framed = [_chat(text, tokenizer, settings) if chat else f"{text}\n\n" for text in texts]
    if settings.think:
        framed = [_think(text, settings.think_open) for text in framed]
    ids = [tuple(row) for row in tokenizer(framed, add_special_tokens=not chat)["input_ids"]] if framed else []
    for text, row in zip(texts, ids, strict=True):
        if not row:
            raise CheckpointError(f"{tokenizer.name_or_path}: its tokenizer makes no token of the prompt {text[:60]!r}")
    return ids


def _survives_decoding(text: str, tokenizer: PreTrainedTokenizerFast) -> bool:
    """True if a text is still there when its tokens are decoded as those of responses are."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text in tokenizer.decode(ids, skip_special_tokens=True)


def _chat(text: str, tokenizer: PreTrainedTokenizerFast, settings: MathsSettings) -> str:
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"task.maths.template = chat: the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat "
            "template; expected one, or task.maths.template = plain"
        )
    messages = [{"role": "user", "content": text}]
    if settings.system is not None:
        messages.insert(0, {"role": "system", "content": settings.system})
    try:
        framed: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=settings.think
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise CheckpointError(f"{tokenizer.name_or_path}: its chat template fails ({error})") from None
    return framed


def _think(text: str, opening: str) -> str:
    """Open a thought at the end, unless the template has done so."""
    return text if text.rstrip().endswith(opening) else f"{text}{opening}\n"
