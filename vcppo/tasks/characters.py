"""A tokenizer of one token a character, for a small fresh policy of a task with text."""

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from vcppo.tasks.words import END, PAD

UNKNOWN = "<unk>"


def character_tokenizer(characters: str) -> PreTrainedTokenizerFast:
    """Three specials, then these characters in order of code; others become `<unk>`.

    >>> tokenizer = character_tokenizer("ab ?")
    >>> tokenizer("ab?<eos>")["input_ids"]
    [5, 6, 4, 1]
    >>> tokenizer.decode([5, 3, 6, 1], skip_special_tokens=True)
    'a b'
    """
    vocabulary = [PAD, END, UNKNOWN, *sorted(set(characters))]
    model = Tokenizer(WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN))
    model.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    model.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
