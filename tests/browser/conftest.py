"""Skips what needs a browser where there is none, with what is missing; with VCPPO_REQUIRE_BROWSER that is an error."""

import importlib.util
import os
import shutil

import pytest

MISSING = [
    *(program for program in ("chromium", "chromedriver") if shutil.which(program) is None),
    *(["selenium, of the dev extra"] if importlib.util.find_spec("selenium") is None else []),
]
HOW = "apt-get install chromium chromium-driver"

if MISSING and os.environ.get("VCPPO_REQUIRE_BROWSER"):
    raise RuntimeError(f"VCPPO_REQUIRE_BROWSER is set; missing: {', '.join(MISSING)} ({HOW})")
if MISSING:
    pytest.skip(f"missing: {', '.join(MISSING)} ({HOW})", allow_module_level=True)
