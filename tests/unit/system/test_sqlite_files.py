"""SQLite databases whose folders have any name, made whole or not at all."""

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy
from odd_names import NAMES

from vcppo.errors import ConfigError
from vcppo.system.sqlite_files import check_address, making, move_file_aside, sqlite_file, sqlite_uri, whole_database


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_file_leads_to_that_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "x.db"
    file.parent.mkdir()
    uri = sqlite_uri(file)
    check_address(uri)
    assert sqlite_file(uri) == file
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE here (x)"))
    engine.dispose()
    assert file.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_address_is_the_plain_one_where_that_will_do() -> None:
    assert sqlite_uri(Path("/runs/a b#1/größer.db")) == "sqlite:////runs/a b#1/größer.db"


def test_a_name_that_no_address_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a folder of another name"):
        sqlite_uri(Path(os.fsdecode(b"/runs/\xff/mlflow.db")))


@pytest.mark.parametrize("uri", ["sqlite:////runs/really?/x.db", "sqlite:///runs/a?b=c/x.db", "sqlite:///x.db?"])
def test_a_question_mark_in_a_name_is_not_taken_for_options(uri: str) -> None:
    with pytest.raises(ConfigError, match="one in a name is written %3F"):
        check_address(uri)


@pytest.mark.parametrize("uri", ["sqlite:x.db", "sqlite:/x.db", "sqlite+pysqlite"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="expected an address like sqlite:///relative"):
        check_address(uri)


def test_options_servers_and_what_lies_in_memory() -> None:
    assert sqlite_file("sqlite:///a.db?timeout=60") == Path("a.db")
    others = (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?mode=ro&uri=true",
        "http://host:5000",
        "sqlite/mlruns",
    )
    assert {sqlite_file(uri) for uri in others} == {None}


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with suppress(ZeroDivisionError), making(file), whole_database(file) as temporary:
        temporary.write_text("half")
        Path(f"{temporary}-journal").write_text("")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [".x.db.lock"]
    (tmp_path / ".x.db.123.new").write_text("left by a kill")
    (tmp_path / ".x.db.123.new-journal").write_text("and its journal")
    with making(file), whole_database(file) as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.db.lock", "x.db"]
    assert file.read_text() == "whole"


def test_of_several_one_makes_the_file(tmp_path: Path) -> None:
    file, made = tmp_path / "x.db", []

    def make(number: int) -> None:
        with making(file):
            if not file.exists():
                with whole_database(file) as temporary:
                    temporary.write_text(str(number))
                made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.read_text()] == [str(number) for number in made]


def test_what_is_moved_aside_takes_its_journal_along(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    for number in (1, 2):
        sqlite3.connect(file).close()
        file.write_text(f"database {number}")
        Path(f"{file}-journal").write_text(f"journal {number}")
        assert move_file_aside(file, "old").name == f"x.db.old-{number}"
        assert Path(f"{file}.old-{number}-journal").read_text() == f"journal {number}"
    assert not file.exists()
