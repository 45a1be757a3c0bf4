"""Where two tokenizers begin a token together: at true prefixes of the text, and never within a character."""

import arithmetic
from hypothesis import given
from hypothesis import strategies as st

from vcppo.diagnosis.boundaries import boundaries, shared

TOKENIZER = arithmetic.make_tokenizer()
TEXT = st.text(alphabet="0123 +=\nab\u00e9\u4f60\U0001f600<", max_size=30)


@given(TEXT)
def test_what_is_before_a_boundary_is_what_the_tokens_before_it_say(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    result = boundaries(ids, TOKENIZER, text)
    assert len(result) == len(ids)
    for place, characters in enumerate(result):
        before = TOKENIZER.decode(ids[:place])
        assert before.endswith("\ufffd") if characters is None else before == text[:characters]


def test_a_character_of_several_tokens_has_a_boundary_at_its_ends_alone() -> None:
    ids = TOKENIZER("1\u4f602")["input_ids"]
    assert len(ids) == 5
    assert boundaries(ids, TOKENIZER, "1\u4f602") == [0, 1, None, None, 2]


def test_special_tokens_have_no_characters() -> None:
    ids = [*TOKENIZER("1<|im_start|>2")["input_ids"], TOKENIZER.eos_token_id]
    assert boundaries(ids, TOKENIZER, "12") == [0, 1, 1, 2]


def test_after_a_difference_of_ids_and_text_there_is_no_boundary() -> None:
    assert boundaries(TOKENIZER("1+23")["input_ids"], TOKENIZER, "1-23") == [0, 1, None, None]


def test_places_are_paired_by_characters() -> None:
    assert shared([0, 1, 2, 3, 4], [0, 2, 4]) == ([0, 2, 4], [0, 1, 2])
    assert shared([0, None, 2], [0, 1, 2, 2]) == ([0, 2], [0, 2])
    assert shared([0], []) == ([], [])
