"""Nothing that leaves a process shows a secret, whoever wrote the text and however ill-formed the address is."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_study import FakeStudy
from mlflow_server import free_port
from tiny import ASSIGNMENTS

from vcppo.cli.exit_codes import NOT_DELIVERED
from vcppo.cli.main import main
from vcppo.errors import StudyError, TrackingError
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.journal import Journal, read_journal
from vcppo.studies.cell_run import run_and_record
from vcppo.studies.trials import open_storage
from vcppo.system import redaction
from vcppo.system.redaction import (
    redacted,
    remember,
    secrets_in,
    secrets_of,
    without_credentials,
)
from vcppo.tracking.ledger import store_name
from vcppo.tracking.mlflow_client import MlflowStore, translate_errors

ADDRESSES = {  # address -> as it may be shown
    "postgresql://ada:hunter22@host/db": "postgresql://host/db",
    "postgresql+psycopg://ada:hunter22@host:5432/db?sslmode=require": "postgresql+psycopg://host:5432/db?sslmode=require",
    "http://ada:hunter22@tracking:5000/x": "http://tracking:5000/x",
    "https://hunter22@tracking/x": "https://tracking/x",
    "mysql://ada:hunt@er22@host/db": "mysql://host/db",
    "postgresql://ada:hunt%40er22@host/db": "postgresql://host/db",
    "postgresql://ada:{hunter22}@host/db": "postgresql://host/db",
    "postgresql://ada:hun/ter22@host/db": "postgresql://host/db",
    "http://ada:hun#ter22@host": "http://host",
    "http://ada:hun?ter22@host": "http://host",
    "http://ada:[hunter22@host": "http://host",
    "postgresql://ada:h@host/db": "postgresql://host/db",
    "postgresql:ada:hunter22@host/db": "postgresql:host/db",
    "postgresql:/ada:hunter22@host/db": "postgresql:/host/db",
    "ada:hunter22@host/db": "host/db",
    "postgresql://host/db?password=hunter22&sslmode=require": "postgresql://host/db?password=***&sslmode=require",
    "postgresql://host/db?sslmode=require&sslpassword=hunter22": "postgresql://host/db?sslmode=require&sslpassword=***",
    "http://host/?access_token=hunter22": "http://host/?access_token=***",
    "mssql+pyodbc:///?odbc_connect=UID%3Dada%3BPWD%3Dhunter22%3B": "mssql+pyodbc:///?odbc_connect=UID%3Dada%3BPWD%3D***%3B",
}  # fmt: skip
HARMLESS = (
    "sqlite:////tmp/a@b.db",
    "sqlite:////tmp/x:y@z/mlflow.db",
    "/data/x:y@z/runs",
    "./x:y@z",
    "http://tracking:5000",
    "http://tracking:5000/x?mail=ada@host",
    "http://[::1]:5000/x@y",
    "postgresql://host:5432/db?application_name=a@b",
    "databricks://profile",
    "s3://bucket/x",
)
TEXTS = {  # what it says -> what is shown
    "MLFLOW_TRACKING_TOKEN=hunter22 vcppo train": "MLFLOW_TRACKING_TOKEN=*** vcppo train",
    "{'AWS_SECRET_ACCESS_KEY': 'hunter22', 'A': 'b'}": "{'AWS_SECRET_ACCESS_KEY': '***', 'A': 'b'}",
    "aws_secret_access_key = hunter22": "aws_secret_access_key = ***",
    'invalid dsn: "host=db user=ada password=hunter22"': 'invalid dsn: "host=db user=ada password=***"',
    "host=db password='hun ter22' user=ada": "host=db password=*** user=ada",
    "headers: {'Authorization': 'Bearer hunter22'}": "headers: {'Authorization': 'Bearer ***'}",
    "Driver={X};UID=ada;PWD=hunter22;Server=db": "Driver={X};UID=ada;PWD=***;Server=db",
    "logged in with hf_abcdefghijklmnopqrstuvwxyz": "logged in with ***",
    '{"password": "hunter22", "user": "ada"}': '{"password": "***", "user": "ada"}',
    "two: http://a:hunter22@x/1, http://b:hunter22@y/2": "two: http://x/1, http://y/2",
}  # fmt: skip
SAME = (
    "max_tokens=8192 and eval/aime24/avg@32: 0.5",
    "the response to 3:4 @ 5 is {x: y}",
    "cell a: Invalid metric name: 'aime/avg@32'",
    "pretrain.steps = converge, token_reward.kind = none, eos_token: <eos>, tokens=3",
    "[12/35] vcppo-s0 done in 8 s: accuracy 0.500, length 123 tokens",
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_addresses", {})


def shows(text: str) -> bool:
    """True if a text has the password, or more than a few letters of it."""
    return any(part in text for part in ("hunter22", "ter22", "er22", "hunt", "hun ter"))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_user_and_password(address: str) -> None:
    assert without_credentials(address) == ADDRESSES[address]
    remember(address)
    shown = ADDRESSES[address]
    assert redacted(f"{address} is away, '{address}' refused") == f"{shown} is away, '{shown}' refused"
    assert not shows(redacted(f"cannot reach {address}/api/2.0/x?y=z"))


@pytest.mark.parametrize("address", HARMLESS)
def test_an_address_without_a_secret_stays_as_it_is(address: str) -> None:
    assert without_credentials(address) == redacted(f"{address}") == address
    assert secrets_of(address) == set()


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_is_known_by_its_place_in_a_text(text: str) -> None:
    assert redacted(text) == TEXTS[text]


@pytest.mark.parametrize("text", [*SAME, '{"u":"http://h:80/x","m":["a@b","c:d@e"]}'])
def test_other_text_stays_as_it_is(text: str) -> None:
    remember("postgresql://ada:hunter22@host/db")
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("postgresql://ada:hunter22@host/db", "password hunter22 is wrong for ada"),
        ("mysql://ada:x@hunter22@host/db", 'could not translate host name "hunter22@host" to address'),
        ("http://ada:abc/hunter22@host", "Port could not be cast to integer value as 'hunter22'"),
        ("postgresql://ada:hunter22%21@host/db", "refused: 'hunter22!'"),
        ("postgresql://ada:hunter22!@host/db", "refused: 'hunter22%21'"),
        ("ada:hunter22@host/db", "no such host: hunter22"),
        ("http://host/?token=hunter22", "token hunter22 is unknown"),
    ],
)
def test_what_a_library_makes_of_an_address_that_was_given_is_masked_too(address: str, text: str) -> None:
    remember(address)
    assert not shows(redacted(text))
    assert "***" in redacted(text)


@pytest.mark.parametrize("password", ["0.25", "100000", "true", "mlflow", "ada"])
def test_a_password_that_results_are_full_of_is_masked_in_its_address_alone(password: str) -> None:
    remember(f"postgresql://ada:{password}@host/db")
    line = f"MLflow: mlflow ui; accuracy {password}"
    assert redacted(f"{line}, postgresql://ada:{password}@host/db") == f"{line}, postgresql://host/db"


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD",
             "WANDB_API_KEY"]
)  # fmt: skip
def test_secrets_of_the_environment_are_known_by_their_names(name: str) -> None:
    assert secrets_in({name: "hunter22", "HOME": "/home/ada", "HTTPS_PROXY": "http://ada:pa55word@proxy:3128"}) == {
        "hunter22",
        "pa55word",
    }


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


NOT_OPENED = [
    "postgresql://ada:{hunter22}@host/db",
    "postgresql://ada:{hunter22@host/db",
    "postgresql://ada:hunt{}er22@host/db",
    "postgresql:ada:hunter22@host/db",
    "ada:hunter22@host/db",
    "postgresql://ada:hunt@er22@host:x/db",
    "nosuch://ada:hunter22@host/db",
    "postgresql://ada:hunter22@host:port/db",
    "mysql://host/db?password=hunter22",
    "http://ada:hunter22@host",
]


@pytest.mark.parametrize("by", ["flag", "environment"])
@pytest.mark.parametrize("url", NOT_OPENED)
def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(tmp_path: Path, url: str, by: str) -> None:
    flag = {"flag": ["--storage", url], "environment": []}[by]
    told = {"flag": {}, "environment": {"VCPPO_STORAGE": url}}[by]
    done = invoke("sweep", "components", "--seeds", "1", "--workers", "1", "--out", str(tmp_path), *flag, **told)
    assert done.exit_code == 2
    assert not shows(done.output)
    assert done.stderr.startswith("StudyError: --storage ")
    assert done.stderr.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and shows(path.read_text())]


@pytest.mark.parametrize("url", NOT_OPENED)
def test_the_error_itself_holds_no_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(StudyError, match="cannot be opened") as caught:
        open_storage(url, tmp_path)
    assert not shows(str(caught.value))


def test_a_brace_in_a_password_reaches_the_database(tmp_path: Path) -> None:
    folder = tmp_path / "a{b}c"
    folder.mkdir()
    open_storage(f"sqlite:///{folder}/studies-{{SCHEMA_VERSION}}.db", tmp_path).remove_session()
    (made,) = folder.glob("*.db")
    assert made.name.startswith("studies-")
    assert "{" not in made.name


@pytest.mark.parametrize(
    "uri",
    [
        "http://ada:hunter22@127.0.0.1:9",
        "http://ada:hunt@er22@127.0.0.1:9",
        "http://ada:hun/ter22@127.0.0.1:9",
        "http://ada:[hunter22@127.0.0.1:9",
        "http://127.0.0.1:9/?password=hunter22",
        "postgresql://ada:hunter22@127.0.0.1:9/db",
        "mysql+pymysql://ada:{hunter22}@127.0.0.1:9/db",
        "postgresql:ada:hunter22@host/db",
        "nosuch://ada:hunter22@host",
        "ada:hunter22@host",
    ],
)
def test_a_tracking_server_that_cannot_be_reached_is_one_line_without_its_password(tmp_path: Path, uri: str) -> None:
    done = invoke("export", "components", "--from-mlflow", "--tracking-uri", uri, "--out", str(tmp_path))
    assert done.exit_code == 2, done.output
    assert not shows(done.output)
    assert done.stderr.split(":")[0] in ("TrackingError", "RefusedError")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_storage_of_the_environment_is_used_and_named_in_the_help_without_its_value() -> None:
    told = invoke("sweep", "--help", VCPPO_STORAGE="postgresql://ada:hunter22@host/db").output
    assert "$VCPPO_STORAGE" in told
    assert not shows(told)
    storage = next(option for option in main.commands["sweep"].params if option.name == "storage")
    assert storage.envvar == "VCPPO_STORAGE"


@pytest.mark.parametrize(
    "command",
    [["settings"], ["train", "--dry-run"], ["sweep", "components", "--dry-run"], ["plan"], ["pretrain-value"]],
)
def test_what_commands_print_of_settings_holds_no_secret(command: list[str]) -> None:
    """A value that is printed or refused, and a name that is."""
    for said in ("task.maths.system=see http://ada:hunter22@host/x", "http://ada:hunter22@host/x=1"):
        done = CliRunner().invoke(main, [*command, "--set", said])
        assert not shows(done.output)
    assert "http://host/x (from --set): no such setting" in done.output


def test_settings_are_shown_without_the_secrets_they_hold() -> None:
    said = ["task.name=maths", "model.path=owner/model", "task.maths.system=see http://ada:hunter22@host/x"]
    told = invoke("settings", *(word for text in said for word in ("--set", text)))
    assert told.exit_code == 0
    assert "task.maths.system = see http://host/x" in told.output


PROCESS = """
import logging, sys, threading, warnings
early = logging.StreamHandler(sys.stderr)
import click
from vcppo.system.redaction import redact_output
redact_output()
redact_output()
url = "postgresql://ada:hunter22@host/db"
print("print", url)
click.echo(f"echo {url}")
click.echo(f"err {url}", err=True)
sys.stdout.writelines([f"lines {url}\\n"])
logging.getLogger("x").addHandler(early)
logging.getLogger("x").error("log %s", url)
try:
    raise OSError(url)
except OSError:
    logging.getLogger("x").exception("told")
warnings.warn(f"warning {url}")
def fail():
    raise ValueError(f"thread {url}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise RuntimeError(f"end {url}")
"""


def test_streams_logs_warnings_threads_and_tracebacks_show_no_secret() -> None:
    done = subprocess.run([sys.executable, "-W", "default", "-c", PROCESS], capture_output=True, text=True)
    assert done.returncode == 1
    for word in ("print", "echo", "lines"):
        assert f"{word} postgresql://host/db\n" in done.stdout
    for word in ("err", "log", "OSError:", "ValueError: thread", "RuntimeError: end"):
        assert f"{word} postgresql://host/db" in done.stderr
    shown = [line for line in done.stderr.splitlines() if "url = " not in line]
    assert not [line for line in shown if shows(line)]
    assert not shows(done.stdout)


def test_secrets_of_the_environment_are_masked_in_what_a_process_says(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from vcppo.system.redaction import redact_output; redact_output(); print('token is hunter22')"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "token is ***\n"


def test_a_log_record_is_redacted_for_whoever_handles_it(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    try:
        redaction.redact_output()
        logging.getLogger("vcppo").warning("at %s", "http://ada:hunter22@host")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["at http://host"]


def test_the_records_of_a_cell_hold_no_secret(tmp_path: Path) -> None:
    def runner(cell: Path, out: Path) -> dict[str, float]:
        raise OSError("cannot reach http://ada:hunter22@host/x")

    record = CellRecord(study="s", cell="c", arm="a", seed=0)
    folder = CellFolder.create(tmp_path / "c", record, RunSettings())
    assert run_and_record(folder, tmp_path, runner).error == "OSError: cannot reach http://host/x"
    trace = (folder.path / "traceback.txt").read_text()
    assert "OSError: cannot reach http://host/x" in trace
    assert not shows(trace)


def test_a_journal_holds_no_secret_and_its_numbers_are_what_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.table("samples", 1, {"text": ["see http://ada:hunter22@host/x", "a@b"], "n": [22, 1]})
    journal.metrics(1, {"policy/loss": 0.1 + 0.2})
    journal.table("samples", 2, {"text": ['set password="abc"', 'API_TOKEN = "x", \'a', "b'"], "n": [1, 2, 3]})
    table, metrics, quoted = read_journal(journal.path)
    assert quoted["columns"] == {"text": ["set password=***", 'API_TOKEN = "***", \'a', "b'"], "n": [1, 2, 3]}
    assert table["columns"] == {"text": ["see http://host/x", "a@b"], "n": [22, 1]}
    assert metrics["values"] == {"policy/loss": 0.1 + 0.2}


def test_mlflow_is_told_no_secret(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path)
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "x", tmp_path / "artifacts")
    run = store.create("r", {"vcppo.kind": "r"}, started=0.0)
    secret = "http://ada:hunter22@host/x"
    store.log(run, params={"a": secret}, tags={"b": json.dumps({"url": secret})})
    store.write(run, {"settings.json": json.dumps({"url": secret, "n": 1})})
    (found,) = store.find({"vcppo.kind": "r"})
    assert found.params["a"] == "http://host/x"
    assert json.loads(found.tags["b"]) == {"url": "http://host/x"}
    assert json.loads(store.read(run, "settings.json") or "") == {"url": "http://host/x", "n": 1}
    assert study.out == tmp_path


def test_errors_of_libraries_are_told_without_secrets() -> None:
    uri = "postgresql://ada:hunter22@host/db"
    for error in (OSError(uri), ImportError(f"no driver for {uri}"), ValueError(f"{uri}?")):
        with pytest.raises(TrackingError) as caught, translate_errors(uri):
            raise error
        assert not shows(str(caught.value))


def test_a_store_is_called_by_its_address_without_its_secrets_and_by_nothing_that_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = store_name("http://ada:hunter22@tracking:5000", "vcppo/x")
    assert named == "http://tracking:5000#vcppo/x" == store_name("http://tracking:5000", "vcppo/x")
    remember("postgresql://ada:tracking@host/db")
    assert store_name("http://tracking:5000", "vcppo/x") == named


def test_no_address_stands_among_the_words_that_start_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vcppo.studies.local_pool import WorkerPool

    monkeypatch.setenv("VCPPO_STORAGE", "postgresql://ada:hunter22@host/db")
    pool = WorkerPool(1, runner="fake_cells:run", logs=tmp_path)
    try:
        (worker,) = pool._workers.values()
        assert not shows(Path(f"/proc/{worker.process.pid}/cmdline").read_text())
    finally:
        pool.close()


@pytest.mark.e2e
def test_a_whole_run_says_and_writes_no_password(tmp_path: Path) -> None:
    """At a tracking server that is away, so that the address is told at the end and in every error between."""
    uri = f"http://ada:hunt@er22@127.0.0.1:{free_port()}"
    flags = [word for text in ASSIGNMENTS for word in ("--set", text)]
    command = [sys.executable, "-m", "vcppo", "cold-start", "--out", str(tmp_path), "--tracking-uri", uri, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == NOT_DELIVERED, done.stderr
    assert f"records did not reach http://127.0.0.1:{uri.rpartition(':')[2]}" in done.stdout
    assert not shows(done.stdout + done.stderr)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if b"hunt@er22" in path.read_bytes()]
