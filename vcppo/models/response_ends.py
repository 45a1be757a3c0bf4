"""Tokens that end a response: those that a policy's configuration, its tokenizer and its chat template name."""

from jinja2.exceptions import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.models.configurations import configured_ends, token_ids

CONTENT = "vcppo"  # of the messages in which the end of a turn is looked for


def name_ends(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write every token that ends a response into a policy's configuration, which is saved with it.

    These are the tokenizer's end, which demonstrations close with, all that `generation_config` and `config` name
    beside it and the policy can generate, and the token that closes a turn in the chat template. An end that only the
    architecture's default names counts if the tokenizer takes it for more than text: Llama's is token 2, in many
    vocabularies a word.
    """
    config, generation = policy.config, policy.generation_config
    special = _special(tokenizer)
    by_default = set(token_ids(getattr(type(config), "eos_token_id", None)))
    named = set(configured_ends(policy)) - (by_default - special)
    others = sorted(named | set(token_ids(turn_end(tokenizer))) - {tokenizer.eos_token_id})
    known = range(policy.get_input_embeddings().num_embeddings)
    ends = [tokenizer.eos_token_id, *(id for id in others if id in known and id != tokenizer.eos_token_id)]
    config.eos_token_id = generation.eos_token_id = ends if len(ends) > 1 else ends[0]


def turn_end(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Token that closes an assistant's turn in the chat template; None without a template, or where text follows.

    Base models of some families name another end everywhere, and would write the next turn too.
    """
    if tokenizer.chat_template is None:
        return None
    turns = [{"role": role, "content": CONTENT} for role in ("user", "assistant")]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, ValueError, TypeError):  # such a template is refused where it is used
        return None
    _, written, after = text.rpartition(CONTENT)
    ids = tokenizer(after.strip(), add_special_tokens=False)["input_ids"] if written else []
    return ids[0] if ids and ids[0] in _special(tokenizer) else None


def _special(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Tokens that are more than text."""
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
