"""Files are on the disk before they have their names, or nothing of them is there; temporaries go with processes."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import disk_of

from vcppo.errors import DiskError
from vcppo.system import disk, files, temporaries
from vcppo.system.files import (
    file_lock,
    is_locked,
    read_json_or_move,
    scratch_folder,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
)
from vcppo.system.temporaries import ABANDONED_S, sweep, temporary_for


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record what is synced and renamed, in order, by the names that things have in the end."""
    seen: list[tuple[str, str]] = []

    def named(path: str | Path) -> str:
        name = Path(path).name
        return name.partition("~")[0].removeprefix(".") if "~" in name else name

    def fsync(descriptor: int) -> None:
        seen.append(("sync", named(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def replace(source: Path, target: Path) -> None:
        seen.append(("rename", named(target)))
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_written(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write_bytes(tmp_path / "cell.json", b"{}")
    assert calls == [("sync", "cell.json"), ("rename", "cell.json"), ("sync", tmp_path.name)]


def test_a_folder_that_had_to_be_made_is_on_the_disk_too(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    write_bytes(tmp_path / "cells" / "a" / "cell.json", b"{}")
    assert calls[:2] == [("sync", tmp_path.name), ("sync", "cells")]


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with whole_folder(tmp_path / "policy") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "weights").write_bytes(b"1")
        (folder / "config").write_bytes(b"2")
    renamed = calls.index(("rename", "policy"))
    assert {name for kind, name in calls[:renamed] if kind == "sync"} == {"below", "weights", "config", "policy"}
    assert calls[renamed + 1 :] == [("sync", tmp_path.name)]


def test_after_an_error_what_was_there_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "file", 1)
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "old").touch()
    for path, begin in ((tmp_path / "file", whole_file), (tmp_path / "folder", whole_folder)):
        with pytest.raises(RuntimeError), begin(path) as temporary:
            stop_within(temporary)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "old"]
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new"]


def stop_within(temporary: Path) -> None:
    (temporary / "half" if temporary.is_dir() else temporary).touch()
    raise RuntimeError


def test_files_are_as_readable_as_the_umask_allows_though_a_library_made_them_its_owners(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys
from vcppo.system.files import whole_file, whole_folder
os.umask(0o027)
here = pathlib.Path(sys.argv[1])
def private(path): os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
with whole_file(here / "file") as file: private(file)
with whole_folder(here / "folder") as folder: private(folder / "within")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("file", "folder/within")] == ["0o640"] * 2


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b'{"state": "do', b"\xff\xfe"])
def test_a_small_file_that_is_no_json_is_one_that_is_not_there_and_moved_aside(tmp_path: Path, content: bytes) -> None:
    path, lines = tmp_path / "study.json", list[str]()
    assert read_json_or_move(path, lines.append) is None
    assert lines == []
    path.write_bytes(content)
    assert read_json_or_move(path, lines.append) is None
    assert [p.name for p in tmp_path.iterdir()] == ["study.json.bad-1"]
    assert lines[0].startswith(f"{path}: {len(content)} bytes that are no JSON")
    assert "\n" not in lines[0]
    write_json(path, {"a": 1})
    assert read_json_or_move(path, lines.append) == {"a": 1}


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporaries_of_dead_processes_are_swept_and_of_living_ones_never(tmp_path: Path) -> None:
    (tmp_path / "cells" / "a").mkdir(parents=True)
    own = temporary_for(tmp_path / "cells" / "a" / "cell.json")
    _, host, _, started = own.name.split("~")
    dead = own.with_name(f".cell.json~{host}~{dead_process()}~123.tmp")
    number_given_again = own.with_name(f".cell.json~{host}~{os.getpid()}~1{started}")
    elsewhere = own.with_name(".cell.json~another-host~1~1.tmp")
    long_elsewhere = own.with_name(".state.pt~another-host~1~1.tmp")
    ordinary = own.with_name(".hidden")
    for path in (own, dead, number_given_again, elsewhere, ordinary):
        path.touch()
    long_elsewhere.mkdir()
    (long_elsewhere / "shard").touch()
    past = time.time() - ABANDONED_S - 60
    for path in (long_elsewhere / "shard", long_elsewhere):
        os.utime(path, (past, past))
    assert sweep(tmp_path) == []
    assert set(sweep(tmp_path, below=True)) == {dead, number_given_again, long_elsewhere}
    assert {path.name for path in own.parent.iterdir()} == {own.name, elsewhere.name, ordinary.name}


def test_what_a_killed_writer_left_goes_with_the_next_sweep(tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
from vcppo.system.files import scratch_folder, whole_folder
here = pathlib.Path(sys.argv[1])
with whole_folder(here / "policy") as folder, scratch_folder(here):
    (folder / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of("1M", tmp_path / "disk") as place:
        yield place


def test_a_full_disk_is_one_line_and_what_was_there_stays(small_disk: Path) -> None:
    write_json(small_disk / "cell.json", {"state": "queued"})
    with pytest.raises(DiskError, match=r"^.*cell\.json: cannot be written \(No space left on device; .* are free"):
        write_bytes(small_disk / "cell.json", bytes(2 << 20))
    with pytest.raises(DiskError), whole_folder(small_disk / "policy") as folder:
        (folder / "weights").write_bytes(bytes(2 << 20))
    assert [path.name for path in small_disk.iterdir()] == ["cell.json"]
    assert json.loads((small_disk / "cell.json").read_text()) == {"state": "queued"}


def test_room_is_looked_at_before_a_checkpoint(small_disk: Path) -> None:
    with pytest.raises(DiskError, match=r"state\.pt: needs 120\.0 GB and .* free there; make room, then the same"):
        disk.check_room(small_disk / "rl" / "state.pt", 120_000_000_000)
    disk.check_room(Path("/"), 0)


def test_a_limit_on_files_is_a_disk_error_too(tmp_path: Path) -> None:
    code = """
import pathlib, resource, sys
from vcppo.errors import DiskError
from vcppo.system.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: write_bytes(pathlib.Path(sys.argv[1]) / "a", bytes(5000))
except DiskError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "a: cannot be written (File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:863] . PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_a_full_disk_in_the_words_of_libraries_is_one_line(tmp_path: Path, words: str) -> None:
    with pytest.raises(DiskError, match="make room"), disk.writing(tmp_path / "state.pt"):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="something else"), disk.writing(tmp_path / "state.pt"):
        raise RuntimeError("something else")


def test_a_folder_that_is_another_users_is_one_line(tmp_path: Path) -> None:
    words = r"Permission denied; expected a folder of your own"
    with pytest.raises(DiskError, match=words) as refused, disk.writing(tmp_path):
        raise PermissionError(13, "Permission denied")
    assert refused.value.errno == 13
    assert str(refused.value).startswith(f"{tmp_path}: Permission")


def test_a_name_says_whose_a_temporary_is(tmp_path: Path) -> None:
    own = temporary_for(tmp_path / "cell.json")
    assert temporaries.is_temporary(own)
    assert f"~{os.getpid()}~" in own.name
    assert not temporaries.is_temporary(tmp_path / "cell.json")
    assert files.rename_aside(_touched(tmp_path / "a"), "bad").name == "a.bad-1"
    assert files.rename_aside(_touched(tmp_path / "a"), "bad").name == "a.bad-2"


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_a_file_of_many_that_cost_little_is_whole_and_not_waited_for(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write_json(tmp_path / "00001.json", {"a": 1}, synced=False)
    assert calls == [("rename", "00001.json")]
    assert json.loads((tmp_path / "00001.json").read_text()) == {"a": 1}


def test_the_temporary_of_a_process_that_ended_and_was_not_asked_how_is_removed(tmp_path: Path) -> None:
    """As in a container whose first process asks nobody."""
    child = os.fork()
    if child == 0:
        temporary_for(tmp_path / "a.json").touch()
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and stays
    try:
        assert [temporaries.is_temporary(path) for path in sweep(tmp_path)] == [True]
        assert list(tmp_path.iterdir()) == []
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vcppo.system.files.fcntl.flock", refuse)
    words = r"lock: its file system keeps no locks \(.*\), so .*: give another --out"
    with pytest.raises(DiskError, match=words), file_lock(tmp_path / "lock"):
        pass
    with pytest.raises(DiskError, match="keeps no locks"):
        is_locked(tmp_path / "lock")


def test_what_a_library_says_of_a_disk_that_refuses_advises_to_look_after_it(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="look after the disk"), disk.writing(tmp_path):
        raise RuntimeError("Input/output error (os error 5)")
