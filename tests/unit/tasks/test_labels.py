"""Labels beside digits: the rule, slips of demonstrations, the verifier, and the path of decisions."""

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from decision_paths import chance_of_correct, leaves_at
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from vcppo.errors import ConfigError
from vcppo.settings.chains import LabelsTaskSettings
from vcppo.settings.loading import load_settings
from vcppo.tasks import make_task
from vcppo.tasks.labels import LABELS, LabelsTask, binomial
from vcppo.types import Prompt, Verdict

KINDS: list[dict[str, Any]] = [
    {"contexts": 10},
    {"contexts": 100},
    {"contexts": 10, "wrong_label": "kills"},
    {"contexts": 100, "fillers": 2},
    {"wrong_label": "kills", "fillers": 3},
    {"label_words": "own"},
    {"contexts": 100, "label_words": "own", "wrong_label": "kills"},
]


def make(**dials: Any) -> LabelsTask:
    return LabelsTask(LabelsTaskSettings(**{"lines": 8, "held_out": 40, "digits": 3, **dials}))


def drawn(task: LabelsTask, count: int, seed: int = 0) -> list[tuple[Prompt, list[str]]]:
    made = task.demonstrations(count, torch.Generator().manual_seed(seed))
    return [(demonstration.prompt, demonstration.response.split()) for demonstration in made]


def judged(task: LabelsTask, prompt: Prompt, words: list[str]) -> Verdict:
    return task.judge([" ".join(words)], [prompt])[0].verdict


def lines_of(task: LabelsTask, words: list[str]) -> list[list[str]]:
    return [words[i : i + task.settings.line_tokens] for i in range(0, words.index("="), task.settings.line_tokens)]


def other(label: str) -> str:
    return LABELS[label.startswith(LABELS[0])] + label[1:]


def test_a_response_by_pencil() -> None:
    """Of 123 the lines are 234, 346, 469 with every label a; a `b` below adds one to the last digit after it."""
    task = make(lines=3, misunderstood=0)
    prompt = task.prompt("123")
    assert prompt.text == "#3 1 2 3 ?"
    task.rule = dict.fromkeys(task.rule, "a")
    assert " ".join(task.decision_path(prompt, []).tokens) == "#1 2 3 4 a #2 3 4 6 a #3 4 6 9 a = <eos>"
    kills = make(lines=3, misunderstood=0, wrong_label="kills")
    kills.rule = {context: "b" if context in "13" else "a" for context in kills.rule}
    way = "#1 2 3 5 a #2 3 5 7 b #3 5 7 1 a = 5 7 1 <eos>"  # 123 is b: 3 + 1 + 1; 235 is a: 5 + 2; 357 is b: 7 + 3 + 1
    assert kills.decision_path(kills.prompt("123"), []).tokens == tuple(way.split())
    assert judged(kills, kills.prompt("123"), way.split()) is Verdict.CORRECT


@pytest.mark.parametrize("dials", KINDS, ids=str)
def test_demonstrations_slip_where_a_rule_is_misunderstood_and_nowhere_else(dials: dict[str, Any]) -> None:
    task = make(slip=0.4, **dials)
    slips, hard = 0, 0
    for _, words in drawn(task, 1500):
        for _, *digits, label in (line[: 2 + task.settings.digits] for line in lines_of(task, words)):
            context = task.context("".join(digits))
            if context in task.misunderstood:
                hard += 1
                slips += label != task.rule[context]
            else:
                assert label == task.rule[context]
    low, high = binomtest(slips, hard).proportion_ci(0.999)
    assert low < 0.4 < high
    assert hard > 500


@pytest.mark.parametrize("dials", KINDS, ids=str)
def test_the_share_of_right_demonstrations_is_the_expected_one(dials: dict[str, Any]) -> None:
    task = make(**dials)
    made = drawn(task, 2000)
    right = sum(judged(task, prompt, words) is Verdict.CORRECT for prompt, words in made)
    low, high = binomtest(right, len(made)).proportion_ci(0.999)
    assert low < task.demonstrations_right(task.slip)[task.errors_allowed] < high


@pytest.mark.parametrize("dials", [{}, {"contexts": 100}, {"wrong_label": "kills"}, {"lines": 120, "contexts": 100}])
def test_unless_told_otherwise_a_tenth_of_the_demonstrations_is_right(dials: dict[str, Any]) -> None:
    task = LabelsTask(LabelsTaskSettings(**dials))
    assert 0.05 < task.demonstrations_right(task.slip)[task.errors_allowed] < 0.2


def test_rules_are_as_the_dials_say() -> None:
    ten, hundred = make(), make(contexts=100)
    assert (len(ten.rule), len(ten.misunderstood), len(hundred.rule), len(hundred.misunderstood)) == (10, 3, 100, 25)
    assert [list(task.rule.values()).count("a") for task in (ten, hundred)] == [5, 50]
    assert make(misunderstood=0.5).misunderstood > ten.misunderstood
    assert make(rule_seed=1).rule != ten.rule
    assert make(rule_seed=1).misunderstood != ten.misunderstood


@pytest.mark.parametrize("dials", KINDS, ids=str)
def test_a_wrong_label_counts_or_kills(dials: dict[str, Any]) -> None:
    task = make(**({"errors_allowed": 2} | dials if "wrong_label" not in dials else dials), slip=0.0)
    prompt, words = drawn(task, 1)[0]
    places = [i for i, word in enumerate(words) if word.startswith(LABELS)]
    for wrong in range(4):
        changed = list(words)
        for place in places[:wrong]:
            changed[place] = other(words[place])
        verdict = Verdict.CORRECT if wrong <= task.errors_allowed else Verdict.WRONG
        assert judged(task, prompt, changed) is verdict


def test_words_of_its_own_show_an_error_in_the_label_alone() -> None:
    """The same rules, slips and digits; a label of another context is wrong too."""
    shared, own = make(errors_allowed=0), make(errors_allowed=0, label_words="own")
    assert {context: label[0] for context, label in own.rule.items()} == shared.rule
    assert own.misunderstood == shared.misunderstood
    (prompt, plain), (_, named) = drawn(shared, 1)[0], drawn(own, 1)[0]
    assert [word[0] if word[0] in LABELS else word for word in named] == plain
    contexts = [words[1] for words in lines_of(own, named)]
    assert [words[-1][1:] for words in lines_of(own, named)] == contexts
    assert len(own.words()) == 20
    right = list(own.decision_path(prompt, []).tokens)
    elsewhere = next(label for label in own.words() if label[0] == right[4][0] and label != right[4])
    assert judged(own, prompt, [*right[:4], elsewhere, *right[5:]]) is Verdict.WRONG


def test_a_label_that_fits_other_digits_is_no_excuse_for_them() -> None:
    """Each line is compared with the true chain: consistent lines on another chain are wrong."""
    task = make(lines=2, misunderstood=0, errors_allowed=2)
    prompt = task.prompt("123")
    other_chain = list(task.decision_path(task.prompt("124"), []).tokens)
    assert judged(task, prompt, other_chain) is Verdict.WRONG
    kills = make(lines=3, misunderstood=0, wrong_label="kills")
    state, label = "123", kills.rule[kills.context("123")]
    words: list[str] = []
    for number in range(1, 4):  # a slip in the first label, and everything after it as it leads on
        state = kills.next_state(state, label)
        label = kills.rule[kills.context(state)]
        label = other(label) if number == 1 else label
        words += [f"#{number}", *state, label]
    assert judged(kills, kills.prompt("123"), [*words, "=", *state, "<eos>"]) is Verdict.WRONG


@pytest.mark.parametrize("dials", KINDS, ids=str)
def test_a_broken_form_is_unreadable_and_a_readable_untruth_is_wrong(dials: dict[str, Any]) -> None:
    task = make(slip=0.0, **dials)
    prompt, words = drawn(task, 1)[0]
    width, mark = task.settings.line_tokens, words.index("=")
    assert judged(task, prompt, words) is Verdict.CORRECT
    assert judged(task, prompt, words[:-1]) is Verdict.CORRECT  # as the tokenizer decodes it
    broken = [
        [],
        words[:mark],
        words[:-2] if task.kills else words[: mark - 1],
        [*words[:3], *words[4:]],
        ["?", *words],
        [*words[:1], "a", *words[2:]],
        [*words[: mark + 1], "a"],
        [*words[: mark + 1], *"1234", "<eos>"],
        [*words[:1], "٢", *words[2:]],
        [*words[:mark], "=", *words[mark:]],
    ]
    for response in broken:
        assert judged(task, prompt, response) is Verdict.UNREADABLE, response
    wrong = [
        words[width:],
        words[:width] + words[mark:],
        [*words[:1], str((int(words[1]) + 1) % 10), *words[2:]],
        ["#2", *words[1:]],
        [*words[:mark], *words[:width], *words[mark:]],
        ["=", *words[mark + 1 :]],
    ]
    for response in wrong:
        assert judged(task, prompt, response) is Verdict.WRONG, response


@pytest.mark.parametrize(
    "dials",
    [
        {"errors_allowed": 0},
        {"errors_allowed": 1},
        {"errors_allowed": 2, "contexts": 100},
        {"wrong_label": "kills"},
        {"errors_allowed": 1, "fillers": 2},
        {"wrong_label": "kills", "fillers": 2},
    ],
    ids=str,
)
def test_the_path_and_the_verifier_agree_on_every_response_of_two_lines(dials: dict[str, Any]) -> None:
    """At each place the right token or another one, cut at each length, and one that goes on: all of them."""
    task = make(lines=2, digits=2, held_out=10, **dials)
    prompt = task.held_out_prompts()[0]
    way = task.decision_path(prompt, []).tokens
    swap = {"a": "b", "b": "a", "~1": "~2", "~2": "~1", "=": "#1", "<eos>": "="}
    pairs = [(word, swap.get(word, "7" if word != "7" else "8")) for word in way]
    right = 0
    for response in itertools.product(*pairs):
        words = list(response)
        for pieces in (words, words[:-1], [*words, "="]):
            path = task.decision_path(prompt, pieces)
            verdict = task.verify(" ".join(pieces), prompt) if "<eos>" in pieces else Verdict.UNREADABLE
            ended = pieces[-1] == "<eos>" and pieces.count("<eos>") == 1
            correct = verdict is Verdict.CORRECT and ended
            assert chance_of_correct(path, pieces) == correct, pieces
            assert path.written == leaves_at(path, pieces)
            assert path.tokens[: path.written] == tuple(pieces[: path.written])
            right += correct
    assert right == sum(  # labels that may be wrong, fillers that may be either
        2 ** (2 * bool(task.fillers)) * len(list(itertools.combinations(range(2), n)))
        for n in range(task.errors_allowed + 1)
    )


def test_all_ways_are_listed_whatever_the_response_wrote() -> None:
    task = make(fillers=2)
    prompt, words = drawn(task, 1)[0]
    path, at_first = task.decision_path(prompt, words), task.decision_path(prompt, [])
    assert (path.errors, path.exits) == (at_first.errors, {})
    assert (path.written, at_first.written) == (len(words), 0)
    labels = [i for i, word in enumerate(path.tokens) if word in LABELS]
    assert [sorted(path.errors[i].values()) for i in labels] == [[0, 1]] * 8
    assert all(path.errors[i + 1] == {"~1": 0, "~2": 0} for i in labels)


def test_no_filler_stands_for_all_where_a_response_has_not_written_them() -> None:
    """The gradient of a value would go into the embedding of one word that the policy writes one time in four."""
    task = make(lines=30, fillers=4)
    ways = [
        task.decision_path(prompt, []).tokens for prompt in task.training_prompts(40, torch.Generator().manual_seed(0))
    ]
    fillers = Counter(word for way in ways for word in way if word.startswith("~"))
    assert len(fillers) == 4
    assert all(abs(count / sum(fillers.values()) - 0.25) < 0.05 for count in fillers.values())


@given(st.lists(st.sampled_from(["#1", "#2", "1", "9", "a", "b", "=", "~1", "?", "<eos>", "<pad>", "x", "\x00"])))
@settings(max_examples=200, deadline=None)
def test_nothing_that_a_policy_may_write_raises(words: list[str]) -> None:
    for task in (TINY, TINY_KILLS):
        prompt = task.held_out_prompts()[0]
        assert judged(task, prompt, words) is not Verdict.CORRECT
        assert task.decision_path(prompt, words).written <= len(words)


TINY, TINY_KILLS = make(lines=2, fillers=1), make(lines=2, wrong_label="kills")


def test_a_verifier_lies_as_often_as_luck_says_and_always_alike() -> None:
    honest, lucky = make(), make(luck=0.2)
    made = drawn(honest, 4000)
    lies = {True: [0, 0], False: [0, 0]}
    for prompt, words in made:
        truth, said = judged(honest, prompt, words), judged(lucky, prompt, words)
        assert said is judged(lucky, prompt, words)
        lies[truth is Verdict.CORRECT][0] += (said is Verdict.CORRECT) != (truth is Verdict.CORRECT)
        lies[truth is Verdict.CORRECT][1] += 1
    for told, asked in lies.values():
        low, high = binomtest(told, asked).proportion_ci(0.999)
        assert low < 0.2 < high
    path = lucky.decision_path(made[0][0], [])
    assert (path.correct_if_right, path.correct_if_failed) == (0.8, 0.2)


@pytest.mark.parametrize("dials", KINDS, ids=str)
def test_tokens_and_lengths_are_what_settings_say_before_anything_is_made(dials: dict[str, Any]) -> None:
    task = make(**dials)
    tokenizer = task.tokenizer()
    assert len(tokenizer) == task.settings.vocabulary
    for prompt, words in drawn(task, 20):
        ids = tokenizer(" ".join(words))["input_ids"]
        assert len(ids) == len(words) == task.settings.response_tokens
        assert tokenizer.pad_token_id not in ids
        assert len(task.encode([prompt], tokenizer)[0]) == task.settings.prompt_tokens == task.longest_prompt(tokenizer)
        assert len(task.step_starts(words)) == task.settings.steps_of_thought + 1
    assert task.max_tokens == task.settings.response_tokens + task.settings.line_tokens


def test_no_held_out_problem_is_trained_on() -> None:
    task = make(held_out_for_search=30)
    report, search = ({p.name for p in task.held_out_prompts(use)} for use in ("report", "search"))
    rng = torch.Generator().manual_seed(0)
    trained = {prompt.name for prompt in task.training_prompts(16000, rng)}
    assert (len(report), len(search)) == (40, 30)
    shown = {prompt.name for prompt, _ in drawn(task, 4000)}
    assert not report & search
    assert not (trained | shown) & (report | search)
    assert len(trained | shown) == len(task._training)
    assert {prompt.name for prompt in make().held_out_prompts()} == report


def test_too_many_held_out_and_a_foreign_tokenizer_are_refused_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"^task.held_out = 5000: this task has \d+ problems in all; hold out fewer"):
        make(held_out=5000).held_out_prompts()
    task = make()
    task.check_tokenizer(make(lines=9).tokenizer(), "m")
    with pytest.raises(ConfigError, match=r"^task.name = labels: the tokenizer of m has no #8, so it is no policy"):
        task.check_tokenizer(make(lines=7).tokenizer(), "m")


def test_its_settings_make_the_task_and_what_contradicts_itself_is_refused() -> None:
    chosen = load_settings(assignments=["task.name=labels", "task.contexts=100", "task.wrong_label=kills"])
    assert isinstance(make_task(chosen.task), LabelsTask)
    with pytest.raises(ConfigError, match=r"task.errors_allowed = 3.*task.wrong_label = kills allows none"):
        load_settings(assignments=["task.name=labels", "task.errors_allowed=3", "task.wrong_label=kills"])
    with pytest.raises(ConfigError, match=r"^evaluation.problems = search: none are kept for it"):
        load_settings(assignments=["task.name=labels", "evaluation.problems=search"])


def test_binomial_chances() -> None:
    assert binomial(3, 0.5) == pytest.approx([1 / 8, 3 / 8, 3 / 8, 1 / 8])
    assert binomial(2, 0.0) == [1.0, 0.0, 0.0]
