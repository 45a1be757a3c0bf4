"""What an upload is made of: tables, parameters, tags, the figure by position, provenance."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_study import FakeStudy, positions

from vcppo.settings.digests import settings_digest
from vcppo.settings.run import RunSettings
from vcppo.store.study_folders import StudyFolder
from vcppo.system.provenance import git_state, hardware, provenance, versions
from vcppo.system.redaction import redacted
from vcppo.tracking.ledger import Ledger
from vcppo.tracking.mlflow_client import LONGEST_TAG, MlflowStore, Run, from_split, to_split
from vcppo.tracking.mlflow_entities import as_params, list_tables, points_of
from vcppo.tracking.position_figure import position_figure
from vcppo.tracking.uploader import Uploader


class TestSmallParts:
    def test_a_table_survives_the_way_to_json_and_back(self) -> None:
        assert from_split(to_split({"a": [1, 2], "b": ["x", None]})) == {"a": [1, 2], "b": ["x", None]}

    def test_parameters_are_dotted_and_plain(self) -> None:
        assert as_params({"gae": {"gamma": 1.0}, "arm": "ppo", "x": None, "list": [1, 2], "odd@name": True}) == {
            "gae.gamma": "1.0",
            "arm": "ppo",
            "x": "null",
            "list": "[1, 2]",
            "odd_name": "true",
        }

    def test_the_settings_hash_is_that_of_the_settings(self) -> None:
        settings = RunSettings(arm="a", seed=3)
        assert settings_digest(settings.model_dump(mode="json")) == settings.digest()

    def test_the_list_of_tables_keeps_the_latest_when_it_grows_too_long(self) -> None:
        listed = list_tables("[]", [f"tables/samples/{step:06d}.json" for step in range(500)])
        assert len(listed) <= LONGEST_TAG
        assert json.loads(listed)[-1] == {"path": "tables/samples/000499.json", "type": "table"}
        assert list_tables(listed, ["tables/samples/000499.json"]) == listed

    def test_tables_are_no_points(self) -> None:
        assert points_of([{"kind": "table", "name": "x", "step": 0, "time": 1.0, "columns": {}}]) == []

    def test_passwords_are_not_repeated(self) -> None:
        assert redacted("postgresql://ada:secret@host/db") == "postgresql://host/db"
        assert redacted("sqlite:////tmp/a@b.db") == "sqlite:////tmp/a@b.db"

    def test_no_tables_no_figure(self) -> None:
        assert position_figure({}) is None

    def test_the_figure_shows_the_first_and_the_last_step_and_leaves_pyplot_alone(self) -> None:
        imported = "matplotlib.pyplot" in sys.modules  # others may have: what reasoning-gym requires does
        one, two = position_figure({5: positions()}), position_figure({0: positions(), 5: positions(), 9: positions()})
        assert one is not None
        assert two is not None
        width = [int.from_bytes(png[16:20], "big") for png in (one, two)]
        assert width[1] == 2 * width[0]
        assert ("matplotlib.pyplot" in sys.modules) == imported

    def test_long_values_are_cut_with_a_mark(
        self, uploader: Callable[[], Uploader], study: FakeStudy, runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        run = store.create("long", {"vcppo.kind": "long"}, started=0.0)
        store.log(run, params={"a": "x" * 7000}, tags={"b": "y" * 9000})
        (found,) = runs(kind="long")
        assert found.params["a"] == "x" * 5999 + "…"
        assert found.tags["b"] == "y" * 7999 + "…"


def test_a_study_is_on_the_disk_before_the_store_hears_of_it(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut that takes the instance makes another study of it, beside the one that the store has."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    ledger = Ledger(StudyFolder(study.out, study.name), "a store")
    ledger.save()
    assert any(Path(path).name.startswith(".mlflow.json~") for path in synced)
    assert str(ledger.path.parent) in synced


class TestProvenance:
    def test_it_is_json_and_names_versions_and_hardware(self) -> None:
        made = json.loads(json.dumps(provenance()))
        assert made.keys() == {"commit", "dirty", "versions", "hardware"}
        assert made["versions"]["python"] == sys.version.split()[0]
        assert made["versions"]["torch"] == versions()["torch"]
        assert hardware()["cores"] == os.cpu_count()
        assert 0.1 < hardware()["memory_gb"] < 1e5

    def test_outside_a_repository_the_commit_is_unknown(self, tmp_path: Path) -> None:
        assert git_state(tmp_path) == ("unknown", None)

    def test_without_git_the_commit_is_unknown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_state(tmp_path) == ("unknown", None)

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_a_changed_file_makes_the_tree_dirty_and_an_untracked_one_does_not(self, tmp_path: Path) -> None:
        def git(*arguments: str) -> None:
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

        git("init")
        (tmp_path / "a").write_text("1")
        git("add", "a")
        git("commit", "-m", "x")
        (tmp_path / "new").write_text("1")
        commit, dirty = git_state(tmp_path)
        assert (len(commit), dirty) == (12, False)
        (tmp_path / "a").write_text("2")
        assert git_state(tmp_path) == (commit, True)
