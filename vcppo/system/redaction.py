"""Secrets kept out of text: passwords in addresses, tokens, whatever the environment holds under a secret's name.

Text leaves a process at few places, and each of them redacts here: its standard streams and its log (`redact_output`),
the records and journals it writes, what it sends to MLflow, the texts of errors that libraries raise. Settings and
checkpoints are not text: they are written as they are.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TextIO
from urllib.parse import quote, unquote

MASK = "***"
_PROBE = "a secret"
SHORTEST = 6  # characters of a secret that is masked wherever it stands, also outside of addresses
ADDRESSES = ("VCPPO_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")  # environment variables
PUBLIC = {
    "mlflow",
    "optuna",
    "vcppo",
    "postgres",
    "postgresql",
    "mysql",
    "password",
    "admin",
    "root",
    "default",
    "none",
}

_SECRET_WORDS = r"passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|signature"
_SECRET_NAME = re.compile(
    r"(?:PASSWORD|PASSWD|(?:^|_)(?:TOKEN|SECRET|API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS?|PAT|SAS))$"
)
_DATABASES = r"(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle|redis|mongodb|amqp|https?)(?:\+\w+)?"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host; what stands before the last @ of the host's part goes
    (re.compile(r"""(?i)\b([a-z][a-z0-9+.-]{0,40}://)[^\s/?#"'<>]{1,512}@"""), r"\1"),
    # the same with / ? # in the password, which is no port
    (
        re.compile(r"""(?i)\b([a-z][a-z0-9+.-]{0,40}://)(?!\[)[^\s/:@?#"'<>]{0,256}:(?!\d*[/?#])[^\s"'<>]{1,512}@"""),
        r"\1",
    ),
    # scheme:user:password@host and scheme:/user:password@host
    (re.compile(rf"""(?i)\b({_DATABASES}:/?)(?!/)[^\s/:@"'<>]{{1,256}}:[^\s"'<>]{{1,512}}@"""), r"\1"),
    # ?password=...&sslpassword=...;PWD=..., also where an address is quoted within another
    (
        re.compile(
            rf"(?i)((?:[?&;]|%3B|%26|%3F)[\w.-]{{0,64}}(?:{_SECRET_WORDS})[\w.-]{{0,64}}(?:=|%3D))"
            rf"""(?:(?!%3B|%26)[^&\s"'<>;#])+"""
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"""(?i)([?&;](?:sig|auth|pass|key)=)[^&\s"'<>;#]+"""), rf"\1{MASK}"),
    # host=... password=..., as libpq writes it, and the lines of an AWS profile
    (
        re.compile(
            r"(?i)\b((?:(?:ssl|pg)?passw(?:or)?d|aws_secret_access_key|aws_session_token)\s?=\s?)"
            r"""(?:'[^'\n]*'|"[^"\n]*"|[^\s&;,"'<>]+)"""
        ),
        rf"\1{MASK}",
    ),
    # MLFLOW_TRACKING_TOKEN=..., 'HF_TOKEN': '...'
    (
        re.compile(
            r"\b([A-Z][A-Z0-9_]{0,64}(?:PASSWORD|PASSWD|_TOKEN|SECRET|(?:API|ACCESS|SECRET|PRIVATE)_KEY|CREDENTIALS?)"
            r"""["']?\s?[=:]\s?["']?)[^\s"',;]+"""
        ),
        rf"\1{MASK}",
    ),
    # "password": "..."
    (
        re.compile(
            r"""(?i)(["'][\w.-]{0,64}(?:passw(?:or)?d|secret|api_?key|access_?key|access_token)["']\s?:\s?["'])[^"']+"""
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"""(?i)\b(authorization["']?\s?[=:]\s?["']?(?:(?:basic|bearer|token)\s+)?)[^\s"',;]+"""),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b((?i:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{16,}"), rf"\1{MASK}"),
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|dapi[0-9a-f]{32}"
            r"|sk-[A-Za-z0-9_-]{20,})"
        ),
        MASK,
    ),
)

_known: set[str] = set()  # secrets that this process was given
_addresses: dict[str, str] = {}  # whole addresses that it was given, and what is shown of each


def redacted(text: str) -> str:
    """Redact the secrets that a text shows by their place, and those that this process was given.

    >>> redacted("cannot reach http://ada:secret@tracking:5000/x")
    'cannot reach http://tracking:5000/x'
    >>> redacted("postgresql://host/db?sslpassword=abc&sslmode=require, HF_TOKEN=abc")
    'postgresql://host/db?sslpassword=***&sslmode=require, HF_TOKEN=***'
    """
    for address, shown in _addresses.items():
        text = text.replace(address, shown)
    return _by_place(_masked(text, _known))


def redacted_values(value: Any) -> Any:
    """Redact every string of a value made of dicts and lists; its shape, keys and numbers stay.

    As one text, a quote within a string would be read as that string's end, and the next string go with the secret.

    >>> redacted_values({"text": ['API_TOKEN = "x" of', 'http://ada:secret@host'], "password": "abc", "n": 2})
    {'text': ['API_TOKEN = "***" of', 'http://host'], 'password': '***', 'n': 2}
    """
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {
            name: MASK if isinstance(one, str) and _names_a_secret(name) else redacted_values(one)
            for name, one in value.items()
        }
    return [redacted_values(one) for one in value] if isinstance(value, list | tuple) else value


def redacted_json(text: str) -> str:
    """Redact the strings of a JSON document; it comes back as it is, to the byte, where it shows no secret."""
    value = json.loads(text)
    clean = redacted_values(value)
    return text if clean == value else json.dumps(clean, indent=2)


def without_credentials(address: str) -> str:
    """Strip user and password from an address, well formed or not; the same in every process.

    >>> without_credentials("http://ada:p@ss/word@tracking:5000/x"), without_credentials("ada:secret@host/db")
    ('http://tracking:5000/x', 'host/db')
    """
    start, _, end = _split(address)
    return _by_place(start + end)


def remember(address: str | None) -> None:
    """Redact this address's secrets in all text from now on, whatever a library makes of it."""
    if address:
        _known.update(secrets_of(address))
        if (shown := without_credentials(address)) != address:
            _addresses[address] = shown


def secrets_of(address: str) -> set[str]:
    """Secrets of an address: its password, as it stands and decoded, whole and cut where it is misread.

    >>> sorted(secrets_of("postgresql://ada:p%40ssword@host/db"))
    ['p%40ssword', 'p@ssword', 'ssword']
    """
    user, _, password = _split(address)[1].partition(":")
    query = re.findall(rf"(?i)[?&;][\w.-]*(?:{_SECRET_WORDS})[\w.-]*=([^&\s;#]+)", address)
    words = {form for word in (password, *query) for form in (word, unquote(word), quote(unquote(word), safe=""))}
    words |= {part for word in words for part in re.split(r"[@/?#:\[\]]", word)}
    return {word for word in words if _is_secret(word) and word != user}


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    """Values under the names of secrets, and passwords of addresses under any name.

    >>> secrets_in({"MLFLOW_TRACKING_TOKEN": "abcdef-1", "TOKENIZERS_PARALLELISM": "false", "PWD": "/home/ada"})
    {'abcdef-1'}
    """
    secrets = {value for name, value in environment.items() if _SECRET_NAME.search(name.upper()) and _is_secret(value)}
    return secrets.union(*(secrets_of(value) for value in environment.values() if "://" in value and "@" in value))


def redact_output() -> None:
    """Redact this process's standard streams and its log from now on; twice is no more than once."""
    _known.update(secrets_in(os.environ))
    for name in ADDRESSES:
        remember(os.environ.get(name))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))
    logging.setLogRecordFactory(_RedactedRecord)


class RedactedStream:
    """A text stream that redacts what is written to it. It has no `buffer`: bytes would pass by."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Redact each call's text by itself: a secret in two pieces is not seen."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)


class _RedactedRecord(logging.LogRecord):
    """A record with a redacted traceback, for handlers that write to other streams, or held one before."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = redacted(logging.Formatter().formatException(self.exc_info))

    def getMessage(self) -> str:  # noqa: N802  logging's name
        return redacted(super().getMessage())


def _split(address: str) -> tuple[str, str, str]:
    """Split into what precedes the user, user and password, and what follows their @; of a file's address all is first.

    The password may contain an @, a / or a ?; a port and a path with an @ in it are no password.
    """
    match = re.match(r"(?is)([a-z][a-z0-9+.-]*:)?(/{0,2})(.*)", address)
    assert match is not None
    scheme, slashes, rest = match[1] or "", match[2], match[3]
    head = rest.partition("?")[0]
    userinfo = (head if "@" in head else rest).rpartition("@")[0]
    user, colon, password = userinfo.partition(":")
    is_file = scheme.lower().startswith(("file", "sqlite")) or (not scheme and address.startswith(("/", ".", "~")))
    is_port = bool(re.match(r"\d*[/?#]", password)) and (scheme.lower().startswith("http") or "?" in password)
    is_path = bool(re.search(r"[/?#\[]", user)) or is_port
    if is_file or is_path or not userinfo or not (slashes or colon or scheme):
        return address, "", ""
    if not slashes and not colon:  # ada:secret@host: the user looks like a scheme
        return "", scheme + userinfo, rest[len(userinfo) + 1 :]
    return scheme + slashes, userinfo, rest[len(userinfo) + 1 :]


def _is_secret(word: str) -> bool:
    """Long enough, and neither a number, which results hold too, nor a name that stands in every other line."""
    return len(word) >= SHORTEST and word.lower() not in PUBLIC and not re.fullmatch(r"[-+.\deE]+|true|false", word)


@cache
def _names_a_secret(name: str) -> bool:
    shown = f'"{name}": "{_PROBE}"'
    return _by_place(shown) != shown


def _masked(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if secret in text:
            word = len(secret) < 2 * SHORTEST and secret.isalnum()  # not within another word
            text = re.sub(rf"(?<!\w){secret}(?!\w)", MASK, text) if word else text.replace(secret, MASK)
    return text


def _by_place(text: str) -> str:
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text
