"""Answers that may be anything, compared within limits: three verdicts, a note why not, no process lost."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from vcppo.errors import VcppoError
from vcppo.tasks import verifier as module
from vcppo.tasks.verifier import Comparison, Verifier, shared_verifier
from vcppo.types import Judgement, Verdict

LIMIT_S, SHORT_S = 2.0, 1.0
CORRECT, WRONG = Judgement(Verdict.CORRECT), Judgement(Verdict.WRONG)
SOUND = Comparison("\\frac{2}{4}", "\\frac{1}{2}", boxed=True)


def unreadable(note: str) -> Judgement:
    return Judgement(Verdict.UNREADABLE, note)


def box(answer: str, reference: str = "\\frac{1}{2}") -> Comparison:
    return Comparison(answer, reference, boxed=True)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    made = Verifier(workers=2, time_limit_s=LIMIT_S, memory_limit_mb=512)
    yield made
    made.close()


@pytest.fixture(scope="module")
def short() -> Iterator[Verifier]:
    """For answers that take as long as they may."""
    made = Verifier(workers=2, time_limit_s=SHORT_S, memory_limit_mb=512)
    yield made
    made.close()


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Verifier]:
    """One process, nothing remembered."""
    made = Verifier(workers=1, time_limit_s=LIMIT_S, memory_limit_mb=512)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [
        ("\\frac{1}{2}", "0.5", CORRECT),
        ("\\frac{1}{2}", "1/2", CORRECT),
        ("\\frac{1}{2}", "\\dfrac12", CORRECT),
        ("\\frac{1}{2}", "\\frac{2}{3}", WRONG),
        ("2\\sqrt{3}", "\\sqrt{12}", CORRECT),
        ("2\\sqrt{3}", "3\\sqrt{2}", WRONG),
        ("\\{1, 2\\}", "\\{2, 1\\}", CORRECT),
        ("\\{1, 2\\}", "\\{1, 3\\}", WRONG),
        ("1, 2", "2, 1", CORRECT),
        ("[1, 2)", "[1, 2)", CORRECT),
        ("[1, 2)", "[1, 2]", WRONG),
        ("(1, 2)", "(2, 1)", WRONG),
        ("(-\\infty, 3] \\cup [5, \\infty)", "[5,\\infty) \\cup (-\\infty,3]", CORRECT),
        ("x^2 + 2x + 1", "(x+1)^2", CORRECT),
        ("x^2 + 2x + 1", "(x+2)^2", WRONG),
        ("3", "x = 3", CORRECT),
        ("12\\%", "0.12", CORRECT),
        ("16", "2^4", CORRECT),
        ("\\text{Monday}", "Monday", CORRECT),
        ("\\text{Monday}", "\\text{Tuesday}", WRONG),
        ("\\frac{\\pi}{2}", "$\\pi / 2$", CORRECT),
        ("\\frac{1}{2}", "", unreadable("not maths")),
        ("\\frac{1}{2}", "\\frac{", unreadable("not maths")),
        ("\\frac{1}{2}", "@@ ## !!", unreadable("not maths")),
        ("9", "9^9^9^9", unreadable("not maths")),  # TeX refuses it: a double superscript
        ("9", "9^{9}^9", unreadable("not maths")),
        ("9", "9 ### 3", unreadable("not maths")),  # no part of it may stand for the whole
        ("\\frac{", "5", unreadable("reference")),
    ],
)
def test_three_verdicts(verifier: Verifier, reference: str, answer: str, verdict: Judgement) -> None:
    assert verifier.judge([Comparison(answer, reference, boxed=True)]) == [verdict]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("We add them. The answer is $\\frac{2}{4}$.", CORRECT),
        ("The final answer is 0.5", CORRECT),
        ("The answer is 7.", WRONG),
        ("I do not know.", unreadable("no answer")),
    ],
)
def test_an_answer_found_in_a_text(verifier: Verifier, text: str, verdict: Judgement) -> None:
    assert verifier.judge([Comparison(text, "\\frac{1}{2}", boxed=False)]) == [verdict]


HOSTILE = {
    "a tower": ("9^{9^{9^9}}", "204", {"time", "memory"}),
    "a factorial": ("1000000000!", "204", {"time", "memory"}),
    "a factorial of a factorial": ("((10^3)!)!", "204", {"nesting", "time", "memory"}),
    "a sum": ("\\sum_{i=1}^{10^9} i^i", "204", {"time"}),
    "parentheses, deep": ("(" * 490 + "7" + ")" * 490, "204", {"nesting", "time"}),
    "braces, deep": ("{" * 490 + "7" + "}" * 490, "204", {"nesting", "time"}),
    "fractions, deep": ("\\frac{1}{" * 300 + "2" + "}" * 300, "204", {"nesting", "time"}),
    "roots, deep": ("\\sqrt{" * 120 + "7" + "}" * 120, "204", {"nesting", "time"}),
    "backslashes": ("\\" * 1000, "204", {"not maths"}),
    "braces that never close": ("{" * 1000, "204", {"not maths", "nesting", "time"}),
    "a NUL": ("1\x002", "204", {"not maths"}),
    "half a character": ("\ud800", "204", {"not maths"}),
}  # fmt: skip


def test_fractions_that_are_deep_are_compared() -> None:
    deep = "\\frac{1}{" * 20 + "2" + "}" * 20
    patient = Verifier(workers=1, time_limit_s=30.0, memory_limit_mb=512)  # a second of work on an idle machine
    try:
        assert patient.judge([box(deep, "2"), box(deep, "204")]) == [CORRECT, WRONG]
    finally:
        patient.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_its_limit_at_most_and_those_after_it_are_judged(short: Verifier, name: str) -> None:
    answer, reference, notes = HOSTILE[name]
    short.judge([box("\\frac{3}{4}"), box("\\frac{5}{4}")])  # both processes are up
    began = time.perf_counter()
    (judgement,) = short.judge([box(answer, reference)])
    took = time.perf_counter() - began
    assert judgement.verdict is Verdict.UNREADABLE
    assert judgement.note in notes
    assert took < SHORT_S + 1.0
    began = time.perf_counter()
    assert short.judge([box(f"\\frac{{{len(answer)}}}{{{2 * len(answer)}}}")]) == [CORRECT]
    assert time.perf_counter() - began < SHORT_S


def test_memory_that_runs_out_is_told_though_the_parser_says_nonsense() -> None:
    small = Verifier(workers=1, time_limit_s=30.0, memory_limit_mb=64)
    try:
        assert small.judge([box("2^{10^9}", "204"), SOUND]) == [unreadable("memory"), CORRECT]  # 125 MB
    finally:
        small.close()


def deep(n: int) -> int:
    return deep(n + 1)


def raise_one() -> None:
    raise RecursionError


@pytest.mark.parametrize("fail", [lambda: deep(0), raise_one])
def test_recursion_that_is_swallowed_is_no_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]
) -> None:
    """Told from the error where the trace sees it, and from the end of the trace where that has no room left."""
    from vcppo.tasks import grader

    def swallow(*_: object, **__: object) -> bool:
        with suppress(Exception):  # as libraries do
            fail()
        return False

    before = sys.gettrace()
    try:
        assert grader.grade("0.4", "\\frac{1}{2}", boxed=True) == ("wrong", "")
        monkeypatch.setattr(grader, "equal", swallow)
        assert grader.grade("0.4", "\\frac{1}{2}", boxed=True) == ("unreadable", "nesting")
    finally:
        sys.settrace(before)


def test_what_takes_too_long_is_killed_and_its_process_serves_the_next(fresh: Verifier) -> None:
    fresh.judge([SOUND])
    (parent, child) = family(fresh)
    began = time.perf_counter()
    assert fresh.judge([box("9^{9^{9^9}}", "204"), box("0.5")]) == [unreadable("time"), CORRECT]
    assert time.perf_counter() - began < LIMIT_S + 1.0
    _, alive = psutil.wait_procs([child], timeout=5)
    assert not alive
    assert family(fresh)[0] == parent


def test_answers_come_back_in_order_and_equal_ones_are_compared_once(
    fresh: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Comparison] = []
    give = Verifier._give
    monkeypatch.setattr(Verifier, "_give", lambda self, grader, job: (given.append(job), give(self, grader, job)))
    jobs = [box(f"{i % 5}/{1 + i % 3}") for i in range(60)]
    wanted = [CORRECT if (i % 5) * 2 == 1 + i % 3 else WRONG for i in range(60)]
    assert fresh.judge(jobs) == wanted
    assert fresh.judge(jobs[::-1]) == wanted[::-1]
    assert len(given) == len(set(jobs)) == 15
    assert fresh.judge([]) == []


def test_nothing_starts_before_it_is_needed_and_no_more_than_is_needed(fresh: Verifier) -> None:
    assert fresh.pids() == []
    many = Verifier(workers=8, time_limit_s=LIMIT_S, memory_limit_mb=512)
    try:
        many.judge([SOUND])
        assert len(many.pids()) == 1
        pids = many.pids()
        many.judge([box("0.75")])
        assert many.pids() == pids
    finally:
        many.close()
    assert many.pids() == []
    assert not any(psutil.pid_exists(pid) for pid in pids)


def family(verifier: Verifier) -> list[psutil.Process]:
    """The processes and the children that work for them."""
    parents = [psutil.Process(pid) for pid in verifier.pids()]
    return [*parents, *(child for parent in parents for child in parent.children())]


def test_a_process_that_is_killed_at_its_work_is_a_crash_of_that_answer_alone(
    fresh: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.judge([SOUND])
    (parent, child) = family(fresh)
    threading.Timer(0.3, child.send_signal, [signal.SIGKILL]).start()
    slow = box("\\sum_{i=1}^{10^9} i^i", "204")
    with caplog.at_level(logging.WARNING):
        assert fresh.judge([slow, box("0.5")]) == [unreadable("crash"), CORRECT]
    assert caplog.messages == ["an answer is unreadable (crash): '\\\\sum_{i=1}^{10^9} i^i'"]
    assert fresh.pids() == [parent.pid]
    threading.Timer(0.3, parent.send_signal, [signal.SIGKILL]).start()
    assert fresh.judge([slow, box("0.25")]) == [unreadable("crash"), WRONG]  # not remembered: it may have been bad luck
    assert fresh.pids() != [parent.pid]


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_dies_while_idle_costs_no_answer(fresh: Verifier, which: int) -> None:
    fresh.judge([SOUND])
    victim = family(fresh)[which]
    victim.kill()
    psutil.wait_procs([victim], timeout=5)
    time.sleep(0.3)
    assert fresh.judge([box("0.5"), box("0.4")]) == [CORRECT, WRONG]


def test_a_verdict_that_comes_too_late_is_not_taken_for_the_next_answers(fresh: Verifier) -> None:
    fresh.judge([SOUND])
    (grader,) = fresh._graders
    found: dict[Comparison, Judgement] = {}
    fresh._give(grader, box("0.4"))
    fresh._settle(grader, "time", found)  # given up, while its verdict is on its way
    fresh._give(grader, box("0.5"))
    while grader.job is not None:
        fresh._receive(grader, found)
    assert found == {box("0.4"): unreadable("time"), box("0.5"): CORRECT}


def test_no_process_is_left_when_the_verifier_closes(fresh: Verifier) -> None:
    fresh.judge([SOUND])
    processes = family(fresh)
    assert len(processes) == 2
    fresh.close()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.parametrize("end", [None, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_whoever_started_it(end: signal.Signals | None) -> None:
    """At a plain exit, and in the middle of a comparison that would take forever."""
    script = textwrap.dedent(
        f"""
        import signal
        from vcppo.tasks.verifier import Comparison, shared_verifier
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
        verifier = shared_verifier(workers=1, time_limit_s=600.0, memory_limit_mb=512)
        verifier.judge([Comparison("0.5", "1/2", True)])
        print(*verifier.pids(), flush=True)
        input()
        {"" if end is None else 'print(flush=True); verifier.judge([Comparison("9^{9^{9^9}}", "204", True)])'}
        """
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        grader = psutil.Process(int(process.stdout.readline()))
        processes = [grader, *grader.children()]
        assert len(processes) == 2
        process.stdin.write(b"\n")
        process.stdin.flush()
        if end is not None:
            process.stdout.readline()
            time.sleep(0.3)
            process.send_signal(end)
        process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


def test_whoever_interrupts_a_judgement_leaves_no_process_at_work(fresh: Verifier) -> None:
    fresh.judge([SOUND])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            fresh.judge([box("9^{9^{9^9}}", "204")])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert fresh.pids() == []
    assert fresh.judge([box("0.5"), box("0.3")]) == [CORRECT, WRONG]


def test_threads_may_judge_at_once(verifier: Verifier) -> None:
    found: dict[int, list[Judgement]] = {}

    def ask(n: int) -> None:
        found[n] = verifier.judge([box(f"{n}/{2 * n}"), box(f"{n}/{3 * n}")])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(11, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [CORRECT, WRONG] for n in range(11, 15)}


def test_processes_that_cannot_start_are_told_in_one_line(
    fresh: Verifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "latex2sympy2_extended").mkdir()
    (tmp_path / "latex2sympy2_extended" / "__init__.py").write_text("raise ImportError('no parser here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{module.worker_environment()['PYTHONPATH']}"}
    monkeypatch.setattr(module, "worker_environment", lambda: environment)
    with pytest.raises(VcppoError, match=r"^the verifier cannot start: ImportError: no parser here$"):
        fresh.judge([SOUND])
    assert fresh.pids() == []


def test_a_process_loads_no_torch() -> None:
    code = "import sys, vcppo.tasks.grader; assert 'sympy' in sys.modules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_verifier_serves_all_who_ask_for_the_same_limits() -> None:
    limits: dict[str, Any] = {"time_limit_s": 2.0, "memory_limit_mb": 512}
    assert shared_verifier(workers=1, **limits) is shared_verifier(workers=1, **limits)
    assert shared_verifier(workers=2, **limits) is not shared_verifier(workers=1, **limits)
    assert 1 <= shared_verifier(workers=None, **limits).workers <= 8
