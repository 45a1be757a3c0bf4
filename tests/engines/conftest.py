"""Tests with a real vLLM. Where `nox -s vllm` runs them, VCPPO_VLLM_MUST_RUN is set: none may be skipped then."""

import os

import pytest

pytest.register_assert_rewrite("vllm_cases")

MUST_RUN = "VCPPO_VLLM_MUST_RUN"
_outcomes: dict[str, int] = {"passed": 0, "skipped": 0}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _outcomes["skipped"] += 1
    elif report.passed and report.when == "call":
        _outcomes["passed"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get(MUST_RUN) and (_outcomes["skipped"] or not _outcomes["passed"]):
        print(f"\n{MUST_RUN} is set, but {_outcomes['skipped']} tests were skipped and {_outcomes['passed']} passed")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
