"""Skips what needs a browser where there is none, saying what is missing; `nox -s browser` lets none skip."""

import importlib.util
import os
import shutil

import pytest

MISSING = [
    *(program for program in ("chromium", "chromedriver") if shutil.which(program) is None),
    *(["selenium, of the dev extra"] if importlib.util.find_spec("selenium") is None else []),
]
REASON = f"missing: {', '.join(MISSING)} (apt-get install chromium chromium-driver)"

if MISSING and os.environ.get("VCPPO_REQUIRE_BROWSER"):
    raise pytest.UsageError(f"VCPPO_REQUIRE_BROWSER is set; {REASON}")


def pytest_runtest_setup() -> None:
    if MISSING:
        pytest.skip(REASON)
