"""The report on disk: the page, and its numbers beside it."""

import re
from pathlib import Path
from typing import Any

from vcppo.diagnosis.report.page import page
from vcppo.diagnosis.report.text import visible
from vcppo.diagnosis.report.viewer import ViewerData
from vcppo.diagnosis.schema import Report
from vcppo.system.files import write_bytes

PAGE, NUMBERS = "index.html", "report.json"


def write_report(report: Report, viewer: ViewerData, folder: Path) -> None:
    """Write folder/report.json, then folder/index.html, each whole or not at all.

    The page is one file that opens from disk; it asks the network for nothing, and holds report.json too.
    Half characters (lone surrogates, as in names of files that are not UTF-8) are written out as [U+DCFF] in both.
    """
    report = Report.model_validate(_as_unicode(report.model_dump()))
    whole_page = page(report, viewer)
    write_bytes(folder / NUMBERS, (report.model_dump_json(indent=2) + "\n").encode())
    write_bytes(folder / PAGE, whole_page.encode())


def _as_unicode(value: Any) -> Any:
    if isinstance(value, dict):
        return {_as_unicode(key): _as_unicode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_as_unicode(item) for item in value]
    return (
        re.sub(r"[\ud800-\udfff]", lambda result: visible(result.group()), value) if isinstance(value, str) else value
    )
