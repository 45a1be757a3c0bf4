"""The report on disk: the page, and its numbers beside it."""

from pathlib import Path

from vcppo.diagnosis.report.page import page
from vcppo.diagnosis.report.viewer import ViewerData
from vcppo.diagnosis.schema import Report
from vcppo.system.files import write_text

PAGE, NUMBERS = "index.html", "report.json"


def write_report(report: Report, viewer: ViewerData, folder: Path) -> None:
    """Write folder/report.json, then folder/index.html, each whole or not at all.

    The page is one file that opens from disk; it asks the network for nothing, and holds report.json too.
    """
    whole_page = page(report, viewer)
    write_text(folder / NUMBERS, report.model_dump_json(indent=2) + "\n")
    write_text(folder / PAGE, whole_page)
