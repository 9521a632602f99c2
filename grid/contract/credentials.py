"""Credentials come from the usual environment, never in a URL, which is written to plans, records and messages. What
libraries say is shown without those that it repeats."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
import urllib.parse
from types import TracebackType

from grid.contract.text import path_problem, shown_path

HIDDEN = "***"
_WHY = "which plans and logs would show"

# What follows the "://" of these is a path as it is.
_LOCAL = {"file", "local"}
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAINED = re.compile(r"(?:::[A-Za-z][A-Za-z0-9+.-]*)+://.*", re.DOTALL)

# Lengths are bounded, so that no text takes a time that grows with its square.
_PATTERNS = [
    # user:password@, whatever signs the password has; one slash is what a URL taken for a path is left with
    (
        re.compile(r"(://|\b(?:https?|ftp|gcs|gs|ray|s3a?):/)(?:[^\s/]{1,1000}@|[^\s/:]{0,500}:\S{1,1000}@)"),
        rf"\1{HIDDEN}@",
    ),
    # what follows ?, ; or # in a URL, but not the sentence's own punctuation; a fragment without = is a place in a page
    (re.compile(r"""(://[^\s?'"<>]{1,1000}\?)[^\s'"<>]*[^\s'"<>:;,.)]"""), rf"\1{HIDDEN}"),
    (re.compile(r"""(://[^\s;'"<>]{1,1000};)[^\s'"<>]*[^\s'"<>:;,.)]"""), rf"\1{HIDDEN}"),
    (re.compile(r"""(://[^\s#'"<>]{1,1000}#)[^\s='"<>]{1,200}=[^\s'"<>]*[^\s'"<>:;,.)]"""), rf"\1{HIDDEN}"),
    # the query of a path that is told without its host
    (re.compile(r"""(?<=[\w/.%~-])\?[\w.%~-]{1,200}=[^\s'"<>]*[^\s'"<>:;,.)]"""), f"?{HIDDEN}"),
    # a value by a name that says secret, and a header of HTTP
    (
        re.compile(
            r"(?i)\b([\w-]{0,40}(?:passw(?:or)?d|secret|signature|credential|api[_-]?key|access[_-]?key(?:[_-]?id)?)"
            r"""|(?:access|auth|id|refresh|sas|security|session)[_-]?token)(=['"]?)[^\s&;,'"<>)]+"""
        ),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(
            r"""(?i)\b(authorization['"]?\s*[:=]\s*['"]?(?:basic|bearer|token)\s+|bearer\s+(?=\S{16}))[^\s'",]+"""
        ),
        rf"\1{HIDDEN}",
    ),
    # tokens known by their shape: Hugging Face's, GitHub's, GitLab's, Slack's, AWS', Google's, W&B's, JSON Web Tokens
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|wandb_v\d_\w{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        HIDDEN,
    ),
]

# Variables that hold secrets, and those that hold an endpoint's URL, whose path may be one.
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|ACCESS_KEY_ID|SECRET_KEY)$")
_ENDPOINT = re.compile(r"(?:^|_)ENDPOINT(?:_URL)?(?:_[A-Z0-9_]+)?$")
_SHORTEST = 8  # a shorter value may be an ordinary word


def credentials_in(url: str) -> str | None:
    """What a URL holds that may be a secret, as the predicate of a sentence that does not repeat it; None where it
    holds nothing of the kind. A path on this machine is no URL, and may hold any sign."""
    if "://" not in url:
        return None
    if _names_a_user(url):
        return f"holds a user, password or token (in front of an @), {_WHY}"
    local = all(kind.lower() in _LOCAL for kind in _KIND.findall(url))
    if not local and any(sign in url for sign in "?#;"):
        return f"holds a query or parameters (after a ?, # or ;), {_WHY}"
    return None


def storage_problem(url: str) -> str | None:
    """Why the URL of a storage is refused, as the line that a user reads; None where it is not."""
    secret = _refusal("--storage", url, "leave it out of the URL: credentials come from the environment alone")
    if secret is not None:
        return secret
    place = url if "://" in url else os.path.abspath(os.path.expanduser(url))
    problem = path_problem(place)
    return None if problem is None else f"--storage {shown_path(place)}: {problem}"


def address_problem(address: str) -> str | None:
    """As `storage_problem`, of a Ray's address."""
    url = address if "://" in address else f"ray://{address}"
    return _refusal("--address", url, "leave it out: Ray takes its token from the environment")


def _refusal(what: str, url: str, way_out: str) -> str | None:
    problem = credentials_in(url)
    return None if problem is None else f"{what} {without_place(url)}: {problem}: {way_out}"


def without_place(url: str) -> str:
    """A URL's kind alone: all that may be shown of one that holds credentials."""
    kind = url.partition("://")[0]
    return f"{kind if re.fullmatch(r'[A-Za-z0-9+.:-]+', kind) else '...'}://..."


def _names_a_user(url: str) -> bool:
    """In any URL of a chain (`zip://a::https://b`), or of one that holds another."""
    if "@" in url.partition("://")[0]:
        return True
    for mark in re.finditer("://", url):
        authority, _, path = _CHAINED.sub("", url[mark.end() :], count=1).partition("/")
        # host:PORT/... with an @ behind it may as well be user:PASS/WORD@host.
        with_port = ":" in re.sub(r"\[[^]]*\]", "", authority)
        if "@" in urllib.parse.unquote(authority) or (with_port and "@" in path):
            return True
    return False


def redacted(text: str) -> str:
    """Text of a library without what it may repeat of credentials: users and queries of URLs, tokens of well-known
    shapes, and the values of this process's variables that are called like secrets."""
    for name, value in os.environ.items():
        secret = value if _SECRET.search(name) else ""
        if _ENDPOINT.search(name):
            secret = value.partition("://")[2].partition("/")[2].partition("?")[0].strip("/")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


class RedactedFormatter(logging.Formatter):
    """Writes log records, tracebacks among them, as `redacted`."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redact_tracebacks() -> None:
    """Have what no code has caught, in any thread, written as `redacted`."""

    def write(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))

    def write_threads(unhandled: threading.ExceptHookArgs) -> None:
        if unhandled.exc_type is not SystemExit:
            write(unhandled.exc_type, unhandled.exc_value, unhandled.exc_traceback)

    sys.excepthook, threading.excepthook = write, write_threads
