"""The figures of the page: each says in a sentence how it is read, and has its numbers in a table of the page."""

from vcppo.diagnosis.report.figure_parts import Figure
from vcppo.diagnosis.report.lambda_figures import directions, opinions, steps
from vcppo.diagnosis.report.value_figures import calibration, explained, levels, made_of, ranking
from vcppo.diagnosis.schema import Report


def figures(report: Report) -> list[Figure]:
    """Every figure that the report has numbers for."""
    makers = (directions, steps, levels, explained, calibration, ranking, made_of, opinions)
    made = [maker(report) for maker in makers]
    return [figure for figure in made if figure is not None]
