"""Optuna's own dashboard shows a study from the journal in its folder, as docs/studies.md says."""

import io
import json
import sys
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from optuna_dashboard import wsgi

from vcppo.studies.study import parse_study
from vcppo.studies.trials import Scoreboard, TrialEnd, distributions, open_storage

SPACE = {"gae.lambda_actor": {"low": 0.5, "high": 1.0}}


def get(app: Any, path: str) -> Any:
    """The JSON that the dashboard's page asks for."""
    said: list[str] = []
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "here",
                   "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
                   "wsgi.errors": sys.stderr}  # fmt: skip
    body = b"".join(app(environment, lambda status, headers, error=None: said.append(status)))
    assert said == ["200 OK"]
    return json.loads(body)


def test_it_shows_the_trials_of_a_search_that_goes_on(tmp_path: Path) -> None:
    study = parse_study({"name": "search", "title": "t", "search": {"trials": 3, "space": SPACE}}, "test")
    board = Scoreboard(open_storage(None, tmp_path), "search", study, distributions(study))
    board.begin("a", {"gae.lambda_actor": 0.7})
    board.finish("a", TrialEnd({"gae.lambda_actor": 0.7}, TrialState.COMPLETE, 0.5))
    board.begin("b", {"gae.lambda_actor": 0.9})
    app = wsgi(str(tmp_path / "optuna.journal"))
    (summary,) = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "search"
    first, second = get(app, f"/api/studies/{summary['study_id']}")["trials"]
    assert (first["state"], first["values"], second["state"]) == ("Complete", [0.5], "Running")
    assert [(one["name"], one["param_external_value"]) for one in first["params"]] == [("gae.lambda_actor", "0.7")]
    board.finish("b", TrialEnd({"gae.lambda_actor": 0.9}, TrialState.COMPLETE, 0.6))  # it was not in the way
