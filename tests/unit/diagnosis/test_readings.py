"""Values of logged responses: before which token they are, what is read as what, what is left out, and going on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import forked
from reading import TEXTS, TOKENIZER, ids_dump, make_critic, prepared, response
from torch import Tensor
from transformers import LlamaConfig, LlamaForTokenClassification, PreTrainedModel

from vcppo.diagnosis import readings
from vcppo.diagnosis.readings import read_critic, read_logged
from vcppo.diagnosis.responses import Dump, LoggedResponse, Reading
from vcppo.diagnosis.stored_values import StoredValues
from vcppo.errors import CheckpointError, DataError
from vcppo.models import forward, loading
from vcppo.tasks.characters import character_tokenizer

CHARACTERS = character_tokenizer("".join(sorted({*"".join(TEXTS), *"0123456789 +?\n"})))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_critic(tmp_path_factory.mktemp("reading"))


@pytest.fixture
def critic(folder: Path) -> PreTrainedModel:
    return prepared(loading.load_critic(folder))


def character_critic() -> PreTrainedModel:
    """A critic that reads character by character."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=len(CHARACTERS), num_labels=1, initializer_range=0.5, **shape)
    return prepared(LlamaForTokenClassification(config).eval())


def dump_of(*responses: LoggedResponse) -> Dump:
    return Dump("dump.jsonl", "test", responses)


def read(critic: PreTrainedModel, dump: Dump, **options: Any) -> Reading:
    return read_critic(critic, TOKENIZER, dump, **{"name": "tiny", "max_tokens": 100, **options})


def after_each(critic: PreTrainedModel, ids: list[int]) -> Tensor:
    """Head after each token of one row, by transformers' own forward pass."""
    with torch.inference_mode():
        logits: Tensor = critic(input_ids=torch.tensor([ids])).logits[0, :, 0]
    return logits


def row_of(reading: Reading, row: int) -> list[float]:
    values: list[float] = reading.values[row][reading.response_mask[row]].tolist()
    return values


def test_a_value_stands_before_its_token_and_a_return_is_what_follows(critic: PreTrainedModel) -> None:
    dump = ids_dump()
    reading = read(critic, dump)
    assert reading.scores.tolist() == [1, 0, 1, 0, 1]
    assert reading.problem.tolist() == [0, 1, 0, 1, 0]
    assert reading.rows is not None
    assert reading.rows.tolist() == [0, 1, 2, 3, 4]
    for row, logged in enumerate(dump.responses):
        prompt, tokens = TOKENIZER(logged.prompt)["input_ids"], list(logged.tokens or ())
        wanted = after_each(critic, prompt + tokens)[len(prompt) - 1 : -1]
        assert row_of(reading, row) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert reading.returns[row][: len(tokens)].tolist() == [logged.score] * len(tokens)
        assert not reading.values[row][len(tokens) :].any()
    assert float(reading.values[reading.response_mask].std()) > 0.05


def test_returns_are_the_rewards_to_come(critic: PreTrainedModel) -> None:
    first = ids_dump().responses[0]
    tokens = (first.tokens or ())[:4]
    rewards = (-0.5, 0.0, 0.25, 2.0)
    reading = read(critic, dump_of(replace(first, tokens=tokens, rewards=rewards)))
    assert reading.returns.tolist() == [[1.75, 2.25, 2.25, 2.0]]
    assert reading.scores.tolist() == [1.0]
    with pytest.raises(DataError, match=r"dump.jsonl response 1: 3 rewards beside 4 tokens"):
        read(critic, dump_of(replace(first, tokens=tokens, rewards=rewards[:3])))


def test_text_is_read_as_its_tokens_and_its_end_is_a_state_too(critic: PreTrainedModel) -> None:
    ids = read(critic, ids_dump())
    text = read(critic, dump_of(*(response(i, text=text) for i, text in enumerate(TEXTS))))
    torch.testing.assert_close(text.values, ids.values)
    assert text.notes == ("5 of 5 responses are text; an end-of-sequence token closes them",)
    closed = read(critic, dump_of(response(0, text=f"{TEXTS[0]}<|im_end|>")))
    assert row_of(closed, 0) == pytest.approx(row_of(ids, 0), abs=1e-5)
    cut = read(critic, dump_of(response(0, text=TEXTS[0], truncated=True)))
    assert row_of(cut, 0) == pytest.approx(row_of(ids, 0)[:-1], abs=1e-5)
    assert (closed.notes, cut.notes) == ((), ())


def test_prompts_are_ids_or_messages_or_text_or_nothing(critic: PreTrainedModel) -> None:
    described = [{"role": "user", "content": "3 + 4?"}]
    framed = "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    ids = tuple(TOKENIZER(framed)["input_ids"])
    tokens = ids_dump().responses[0].tokens
    kinds: list[dict[str, Any]] = [
        {"messages": tuple(described), "prompt": ""},
        {"prompt": framed},
        {"prompt": "", "prompt_tokens": ids},
    ]
    reading = read(critic, dump_of(*(response(0, tokens=tokens, **kind) for kind in kinds)))
    assert row_of(reading, 1) == pytest.approx(row_of(reading, 0), abs=1e-5)
    assert row_of(reading, 2) == pytest.approx(row_of(reading, 0), abs=1e-5)
    bare = read(critic, dump_of(response(0, prompt="", tokens=tokens)))
    assert "1 of 1 responses have no prompt and are read without one" in bare.notes
    with pytest.raises(CheckpointError, match=r"no chat template, and dump\.jsonl has a prompt of messages"):
        read_critic(
            character_critic(),
            CHARACTERS,
            dump_of(response(0, messages=tuple(described), text="7")),
            name="x",
            max_tokens=9,
        )


def test_micro_batches_and_chunks_change_nothing(critic: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(critic, ids_dump(), max_tokens=10**6)
    torch.testing.assert_close(read(critic, ids_dump(), max_tokens=1).values, whole.values)
    monkeypatch.setattr(readings, "CHUNK_TOKENS", 70)
    torch.testing.assert_close(read(critic, ids_dump(), max_tokens=50).values, whole.values)


def test_what_does_not_fit_is_left_out_and_never_cut(critic: PreTrainedModel) -> None:
    whole, lengths = read(critic, ids_dump()), [len(r.tokens or ()) for r in ids_dump().responses]
    prompt = len(TOKENIZER("0 + 1?\n")["input_ids"])
    long = replace(ids_dump().responses[2], tokens=(ids_dump().responses[2].tokens or ())[:-1] * 9)
    critic.config.max_position_embeddings = prompt + max(lengths)
    dump = ids_dump()
    reading = read(critic, replace(dump, responses=(*dump.responses[:2], long, *dump.responses[3:])))
    assert reading.rows is not None
    assert reading.rows.tolist() == [0, 1, 3, 4]
    torch.testing.assert_close(reading.values[2], whole.values[3][: reading.values.shape[1]])
    note = reading.notes[-1]
    assert note.startswith(f"1 of 5 responses do not fit the {prompt + max(lengths)} tokens")
    assert note.endswith("they are left out, numbers are of the others")
    with pytest.raises(DataError, match=r"1 of 1 responses do not fit the .*; expected some that fit"):
        read(critic, dump_of(long))


def test_empty_responses_are_left_out_and_counted(critic: PreTrainedModel) -> None:
    reading = read(critic, dump_of(response(0, tokens=()), *ids_dump().responses[1:]))
    assert reading.notes[-1] == "1 of 5 responses have no token and are left out"
    assert len(reading.values) == 4
    with pytest.raises(DataError, match=r"dump.jsonl: no response has a token"):
        read(critic, dump_of(response(0, tokens=())))
    with pytest.raises(DataError, match=r"dump.jsonl: no responses there"):
        read(critic, dump_of())


def test_values_that_are_no_numbers_stay(critic: PreTrainedModel) -> None:
    """In one response alone: the rest is as before, whatever the micro-batch."""
    tokens = ids_dump().responses[1].tokens or ()
    odd = next(
        token for token in range(3, 100) if token not in {t for r in ids_dump().responses for t in r.tokens or ()}
    )
    dump = ids_dump()
    changed = replace(dump.responses[1], tokens=(*tokens[:2], odd, *tokens[2:]))
    before = read(critic, dump)
    with torch.no_grad():
        critic.get_input_embeddings().weight[odd] = float("nan")
    reading = read(critic, replace(dump, responses=(dump.responses[0], changed, *dump.responses[2:])), max_tokens=10**6)
    not_finite = ~reading.values.isfinite() & reading.response_mask
    assert not_finite.any(dim=1).tolist() == [False, True, False, False, False]
    assert not_finite[1, 3 : len(tokens) + 1].all()  # earlier ones too if the attention multiplies masked NaN by 0
    assert row_of(reading, 4) == pytest.approx(row_of(before, 4), abs=1e-5)


# ---- two tokenizers ----


def test_ids_of_another_tokenizer_give_way_to_their_text(critic: PreTrainedModel) -> None:
    """Nobody says which tokenizer wrote them; that they are not the critic's is seen."""
    theirs = character_critic()
    dump = dump_of(*(replace(r, text=text) for r, text in zip(ids_dump().responses, TEXTS, strict=True)))
    own = read(critic, dump)
    torch.testing.assert_close(own.values, read(critic, ids_dump()).values)
    assert own.notes == ()
    unchecked = read(critic, ids_dump())
    assert unchecked.notes == (
        "token ids are taken to be of the critic's tokenizer: there is no text to check them by",
    )

    reading = read_critic(theirs, CHARACTERS, dump, name="characters", max_tokens=200)
    assert reading.columns is None
    assert reading.response_mask.sum(dim=1).tolist() == [len(text) + 1 for text in TEXTS]
    assert "positions count its own tokens" in reading.notes[0]
    rewarded = replace(dump.responses[0], rewards=(0.0,) * (len(dump.responses[0].tokens or ()) - 1) + (3.0,))
    placed = read_critic(theirs, CHARACTERS, dump_of(rewarded), name="characters", max_tokens=200)
    assert set(placed.returns[0].tolist()) == {3.0}
    spread = replace(rewarded, rewards=(0.5, *(rewarded.rewards or ())[1:]))
    with pytest.raises(DataError, match="expected token ids with the tokenizer that wrote them"):
        read_critic(theirs, CHARACTERS, dump_of(spread), name="characters", max_tokens=200)


def test_under_two_tokenizers_values_are_read_where_both_begin_a_token() -> None:
    """The critic reads characters, so that every logged token begins where one of the critic's does."""
    critic, dump = character_critic(), ids_dump()
    reading = read_critic(critic, CHARACTERS, dump, name="characters", max_tokens=200, logged_tokenizer=TOKENIZER)
    tokens = sum(len(r.tokens or ()) for r in dump.responses)
    assert reading.notes[-1].endswith(f"at {tokens} of {tokens} tokens (100%)")
    assert reading.columns is not None
    for row, logged in enumerate(dump.responses):
        prompt = CHARACTERS(logged.prompt)["input_ids"]
        after = after_each(critic, prompt + CHARACTERS(TEXTS[row])["input_ids"])
        ids = logged.tokens or ()
        starts = [len(TOKENIZER.decode(ids[:t])) for t in range(len(ids))]
        assert row_of(reading, row) == pytest.approx([float(after[len(prompt) - 1 + c]) for c in starts], abs=1e-5)
        assert reading.columns[row][: len(starts)].tolist() == list(range(len(starts)))


def test_under_two_tokenizers_what_only_one_has_is_left_out(critic: PreTrainedModel) -> None:
    """Now characters were logged, with rewards; the critic's tokens begin at some of them."""
    text = TEXTS[0]
    ids = CHARACTERS(text)["input_ids"]
    rewards = tuple(float(i) for i in range(len(ids)))
    dump = dump_of(response(0, tokens=tuple(ids), text=text, rewards=rewards))
    reading = read(critic, dump, logged_tokenizer=CHARACTERS)
    own = TOKENIZER(text)["input_ids"]
    starts = [len(TOKENIZER.decode(own[:t])) for t in range(len(own))]
    assert len(starts) < len(ids)
    assert reading.columns is not None
    assert reading.columns[0].tolist() == starts
    assert reading.returns[0].tolist() == [sum(rewards[c:]) for c in starts]
    alone = read(critic, dump_of(response(0, text=text, truncated=True)))
    assert row_of(reading, 0) == pytest.approx(row_of(alone, 0), abs=1e-5)
    assert reading.notes[-1].endswith(f"at {len(starts)} of {len(ids)} tokens ({len(starts) / len(ids):.0%})")


def test_ids_that_the_critic_does_not_know_are_one_line(critic: PreTrainedModel) -> None:
    with pytest.raises(
        DataError, match=r"dump.jsonl: token 9999, and Qwen2ForTokenClassification from .* knows 328 tok"
    ):
        read(critic, dump_of(response(0, tokens=(5, 9999))))
    wrong = dump_of(response(0, tokens=(5, 6), text="7 + 8 = 15"), response(7, tokens=(5, 6)))
    with pytest.raises(DataError, match=r"dump.jsonl line 7: the response is token ids alone"):
        read_critic(character_critic(), CHARACTERS, wrong, name="x", max_tokens=9)


# ---- going on ----


class Stopped(BaseException):
    """As a signal stops a command."""


def test_a_reading_goes_on_from_the_last_whole_chunk(
    critic: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "CHUNK_TOKENS", 70)
    whole = read(critic, ids_dump())
    store, described = StoredValues(tmp_path, "one"), []

    def stop(read_tokens: int, total: int) -> None:
        described.append(read_tokens)
        if len(described) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        read(critic, ids_dump(), store=store, progress=stop)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    assert described[0] == 0

    reads: list[int] = []
    true = forward.gather_outputs
    monkeypatch.setattr(
        forward, "gather_outputs", lambda *a, **k: reads.append(int(a[1].total_lengths.sum())) or true(*a, **k)
    )
    on: list[tuple[int, int]] = []
    again = read(critic, ids_dump(), store=store, progress=lambda *numbers: on.append(numbers))
    assert torch.equal(again.values, whole.values)
    assert on[0][0] == described[2]
    assert on[-1][0] == on[-1][1] == described[2] + sum(reads)

    files[0].write_bytes(files[0].read_bytes()[:-9])  # a damaged disk
    reads.clear()
    torch.testing.assert_close(read(critic, ids_dump(), store=store).values, whole.values)
    assert len(reads) == 1
    reads.clear()
    read(critic, ids_dump(), store=StoredValues(tmp_path, "another critic"))
    assert sum(reads) == on[-1][1]
    reads.clear()
    read(critic, replace(ids_dump(), responses=ids_dump().responses[::-1]), store=store)
    assert sum(reads) == on[-1][1]


def test_stored_values_keep_nan_and_cannot_be_written_in_one_line(critic: PreTrainedModel, tmp_path: Path) -> None:
    with torch.no_grad():
        forward.value_head(critic).weight.fill_(float("nan"))
    store = StoredValues(tmp_path, "one")
    first = read(critic, ids_dump(), store=store)
    assert torch.equal(read(critic, ids_dump(), store=store).values.isnan(), first.values.isnan())
    assert first.values[first.response_mask].isnan().all()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"cannot be (read|written)"):
        read(critic, ids_dump(), store=StoredValues(tmp_path / "file", "one"))


@pytest.mark.e2e
def test_one_process_and_two_give_the_same_values(folder: Path, tmp_path: Path) -> None:
    said = {}
    for count in (1, 2):
        place = tmp_path / str(count)
        place.mkdir()
        (place / "critic").symlink_to(folder)
        (line,) = [line for line in forked(count, "tests/reading.py", str(place)).splitlines() if '"values"' in line]
        said[count] = json.loads(line)
        assert said[count]["size"] == count
    torch.testing.assert_close(torch.tensor(said[2]["values"]), torch.tensor(said[1]["values"]))
    alone = read(prepared(loading.load_critic(folder)), ids_dump())
    torch.testing.assert_close(torch.tensor(said[2]["values"]), alone.values)


# ---- the dump's own values ----


def test_logged_values_are_the_dumps_own() -> None:
    dump = dump_of(
        response(0, tokens=(4, 5, 6), values=(0.5, float("nan"), 0.25)),
        response(1, tokens=(4, 5)),
        response(2, text="ab", values=(1.0, 2.0), rewards=(-1.0, 2.0)),
    )
    reading = read_logged(dump)
    assert reading.critic == "logged values"
    assert reading.rows is not None
    assert reading.rows.tolist() == [0, 2]
    assert str(reading.values.tolist()) == "[[0.5, nan, 0.25], [1.0, 2.0, 0.0]]"
    assert reading.returns.tolist() == [[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]]
    assert reading.response_mask.tolist() == [[True] * 3, [True, True, False]]
    assert reading.problem.tolist() == [0, 0]
    assert reading.notes == ("1 of 3 responses have no values and are left out",)


def test_logged_values_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(DataError, match=r"dump.jsonl: no response has values per token"):
        read_logged(ids_dump())
    with pytest.raises(DataError, match=r"dump.jsonl line 3: 2 values beside 3 tokens"):
        read_logged(dump_of(response(3, tokens=(1, 2, 3), values=(0.0, 1.0))))
    with pytest.raises(DataError, match=r"dump.jsonl line 3: 1 rewards beside 2 tokens"):
        read_logged(dump_of(response(3, values=(0.0, 1.0), rewards=(1.0,))))


def test_logged_values_begin_alike_in_one_context_at_one_step() -> None:
    """Of one problem: twice the same, then another step, then what was said before is another."""
    one = replace(response(0, tokens=(1, 2), values=(0.1, 0.2)), prompt="", prompt_tokens=(7, 8), step=1)
    others = (one, replace(one, step=2), replace(one, prompt_tokens=(7, 9)))
    reading = read_logged(dump_of(one, *others))
    assert reading.problem.tolist() == [0, 0, 0, 0]
    assert reading.first_state is not None
    assert reading.first_state.tolist() == [0, 0, 1, 2]
    (note,) = reading.notes
    assert note.startswith("values of 2 steps are pooled")
    assert read_logged(dump_of(one, others[2])).notes == ()


def test_logged_values_after_messages_begin_alike_after_the_same_ones() -> None:
    one = replace(response(0, values=(0.1, 0.2)), prompt="", messages=({"role": "user", "content": "a"},))
    other = replace(one, messages=({"role": "user", "content": "b"},))
    state = read_logged(dump_of(one, other, one)).first_state
    assert state is not None
    assert state.tolist() == [0, 1, 0]


def test_a_critic_begins_alike_in_one_context_at_any_step(critic: PreTrainedModel) -> None:
    one = replace(response(0, tokens=(5, 6)), prompt="", prompt_tokens=(7, 8), step=1)
    reading = read(critic, dump_of(one, replace(one, step=2), replace(one, prompt_tokens=(7, 9))))
    assert reading.first_state is not None
    assert reading.first_state.tolist() == [0, 0, 1]
    assert reading.values[0, 0] == pytest.approx(float(reading.values[1, 0]), abs=1e-6)


def test_the_ids_that_values_stand_before_are_known_if_all_were_logged() -> None:
    one = LoggedResponse(problem="a", score=1.0, values=(0.1, 0.2), tokens=(7, 8))
    other = LoggedResponse(problem="a", score=0.0, values=(0.1,), tokens=(7,))
    known = read_logged(dump_of(one, other)).tokens
    assert known is not None
    assert [known[0].tolist(), known[1, :1].tolist()] == [[7, 8], [7]]
    assert read_logged(dump_of(one, replace(other, tokens=None))).tokens is None


def test_a_critic_s_reading_has_the_ids_that_it_read(critic: PreTrainedModel) -> None:
    reading = read(critic, ids_dump())
    assert reading.tokens is not None
    for row, response_tokens in enumerate(reading.tokens):
        read_ids = tuple(response_tokens[reading.response_mask[row]].tolist())
        assert read_ids == ids_dump().responses[row].tokens
