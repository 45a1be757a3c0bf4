"""A study on disk, an MLflow database for its tests, and uploaders from one to the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_study import FakeStudy

from vcppo.system.processes import locked
from vcppo.tracking.mlflow_client import MlflowStore, Run
from vcppo.tracking.uploader import Uploader


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    MlflowStore(uri, "first", tmp_path_factory.mktemp("artifacts"))
    return uri


@pytest.fixture
def study(tmp_path: Path) -> Iterator[FakeStudy]:
    """A study that this process holds, as whoever runs one does."""
    study = FakeStudy(tmp_path / "out")
    with locked(study.out / "studies" / study.name):
        yield study


@pytest.fixture
def uploader(database: str, study: FakeStudy, request: pytest.FixtureRequest) -> Iterator[Callable[[], Uploader]]:
    """Makes uploaders to an experiment of this test alone; each is the study's next process, the one before is gone."""
    made: list[Uploader] = []

    def make() -> Uploader:
        for before in made:
            before.close(10)
        made.append(Uploader(study.out, study.name, database, request.node.name))
        return made[-1]

    yield make
    for one in made:
        one.close(10)


@pytest.fixture
def runs(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[Run]]:
    """The runs of this test's experiment with these tags."""

    def find(**tags: str) -> list[Run]:
        store = MlflowStore(database, request.node.name, tmp_path / "out" / "mlartifacts")
        return store.find({"vcppo.kind" if name == "kind" else name: value for name, value in tags.items()})

    return find


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> MlflowStore:
    return MlflowStore(database, request.node.name, tmp_path / "out" / "mlartifacts")
