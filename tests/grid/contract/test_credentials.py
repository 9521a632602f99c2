"""One rule for what a URL may hold, and for what is shown of a library's words."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from grid.contract.credentials import (
    RedactedFormatter,
    address_problem,
    credentials_in,
    redacted,
    storage_problem,
)

ROOT = Path(__file__).parents[3]

WITH_A_USER = [
    "https://CANARY@host/x.pth",
    "https://me:CANARY@host/x.pth",
    "https://me:CANARY%40x@host/x.pth",
    "https://me:CAN/ARY@host/x.pth",
    "https://me:CAN@ARY@host/x.pth",
    "https://me:CAN::ARY@host/x.pth",
    "https://me:CAN://ARY/@host/x.pth",
    "https://me%3ACANARY%40host/x.pth",
    "s3://CANARY@bucket/kd",
    "s3://AKIA:9/CANARY@bucket/kd",
    "ftp://me:CANARY@host/kd",
    "file://me:CANARY@host/kd",
    "CANARY@https://host/x",
    "me:CANARY@host/x://y",
    "simplecache::s3://me:CANARY@bucket/kd",
    "zip://inner::https://CANARY@host/x.zip",
    "https://host/https://me:CANARY@other/x",
]
NAMES = ("auth", "pwd", "pass", "jwt", "code", "rlkey", "resourcekey", "hdnts", "X-Amz-Signature", "download")
WITH_A_QUERY = [
    *(f"https://host/x.pth?{name}=CANARY" for name in NAMES),
    "https://host/x.pth?CANARY",
    "https://host/x.pth?",
    "https://host/x.pth;token=CANARY",
    "https://host/x.pth#access_token=CANARY",
    "https://host?token=CANARY",
    "s3://bucket/x?X-Amz-Signature=CANARY",
    "memory://there?token=CANARY",
    "filecache::https://host/x.zip?sig=CANARY",
    "zip://inner?x=CANARY::file:///x.zip",
]
ALLOWED = [
    "runs",
    "/data/me@home/a?b#c;d",
    "C:/runs",
    "nas:/volume@snapshot",
    "a::b",
    "file:///with?question#and;more",
    "file:///me@home/x",
    "simplecache::file:///a?b",
    "s3://bucket/kd",
    "s3://bucket/key@version",
    "s3://bucket/a:b/c",
    "hf://datasets/me/set@main/x.parquet",
    "https://host:8443/a/b.safetensors",
    "http://[::1]:9000/x",
    "simplecache::s3://bucket/key@version",
    "zip://inner::s3://bucket/key@version",
    "memory://there",
]


@pytest.mark.parametrize("url", WITH_A_USER)
def test_a_user_password_or_token_is_refused_and_not_repeated(url: str) -> None:
    line = storage_problem(url)
    assert line is not None
    assert "holds a user, password or token (in front of an @)" in line
    assert not any(part in line for part in ("CAN", "ARY", "AKIA", "me:"))


@pytest.mark.parametrize("url", WITH_A_QUERY)
def test_a_query_or_parameters_are_refused_and_not_repeated(url: str) -> None:
    line = storage_problem(url)
    assert line is not None
    assert "holds a query or parameters (after a ?, # or ;)" in line
    assert "CANARY" not in line


@pytest.mark.parametrize("url", ALLOWED)
def test_paths_and_plain_urls_are_allowed(url: str) -> None:
    assert credentials_in(url) is None
    assert storage_problem(url) is None


def test_the_kind_of_a_url_is_all_that_is_shown() -> None:
    line = storage_problem("simplecache::s3://me:CANARY@bucket/kd") or ""
    assert line.startswith("--storage simplecache::s3://...: holds a user")
    assert line.endswith(": leave it out of the URL: credentials come from the environment alone")


def test_rays_address_has_no_user_either() -> None:
    for address in ("ray://me:CANARY@host:10001", "me:CANARY@host:6379", "ray://host:10001?token=CANARY"):
        line = address_problem(address) or ""
        assert line.startswith("--address ray://...: holds a ")
        assert "CANARY" not in line
    for address in ("auto", "host:6379", "[::1]:6379", "ray://host:10001", "local"):
        assert address_problem(address) is None


TOKEN = "CANARY" + "x7Q" * 12
SAID = [
    f'Could not connect to the endpoint URL: "http://me:{TOKEN}@127.0.0.1:9/bucket/kd"',
    f"Cannot connect to https://{TOKEN}@host: refused",
    f"404, message='Not Found', url=URL('https://host/x?token={TOKEN}&b=2')",
    f"HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /x?X-Amz-Signature={TOKEN} (Caused by",
    f"https://host/x?{TOKEN}",
    f"https://host/x;{TOKEN}",
    f"https://host/x#access_token={TOKEN}",
    f"no such file: /here/https:/me:{TOKEN}@host/x",
    f"https://me:a/{TOKEN}@host/x",
    f"headers: {{'Authorization': 'Bearer {TOKEN}'}}",
    f"authorization: Basic {TOKEN}",
    f"AWS4-HMAC-SHA256 Credential={TOKEN}/20260101/x, SignedHeaders=host, Signature={TOKEN}",
    f"password={TOKEN}",
    f"aws_secret_access_key='{TOKEN}'",
    f"the token hf_{TOKEN} is not valid",
    f"bad credentials: ghp_{TOKEN}",
    f"eyJ{TOKEN}.{TOKEN}.{TOKEN}",
]
PLAIN = [
    "size mismatch for cls_token: copying a param with shape torch.Size([1, 1, 192])",
    "__init__() got an unexpected keyword argument 'class_token'; args: class_token=False",
    "Missing key(s) in state_dict: conv1.weight (see https://pytorch.org/docs/notes.html#states)",
    'Could not connect to the endpoint URL: "http://127.0.0.1:9/bucket/kd"; launch again',
    "checkpoint https://host:8443/a/b.pth: HTTP Error 404: Not Found; download it by hand",
    "/data/me@home/a?b;c: No such file; is it there?",
    "s3://bucket/kd/key@version: cut off after 5 of 1000 bytes",
    "a bearer of bad news, basic authentication",
    "code: kd-grid 1a2b3c4d; sha256 " + "0123456789abcdef" * 4,
]


@pytest.mark.parametrize("said", SAID)
def test_what_a_library_says_is_shown_without_the_secret(said: str) -> None:
    assert "CANARY" not in redacted(said)
    assert "***" in redacted(said)
    assert redacted(redacted(said)) == redacted(said)


@pytest.mark.parametrize("said", PLAIN)
def test_what_holds_none_is_shown_as_it_is(said: str) -> None:
    assert redacted(said) == said


def test_the_rest_of_a_line_is_kept() -> None:
    said = 'Could not connect to the endpoint URL: "http://me:pw@127.0.0.1:9/bucket?token=x": refused'
    assert redacted(said) == 'Could not connect to the endpoint URL: "http://***@127.0.0.1:9/bucket?***": refused'
    assert redacted("(see https://host/x?a=b): refused; ask https://host/y?c.") == (
        "(see https://host/x?***): refused; ask https://host/y?***."
    )


def test_the_values_of_secret_variables_are_taken_out_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "refused: CANARY/plain+value, at http://127.0.0.1:9/CANARY-in-a-path/bucket"
    assert redacted(said) == said
    monkeypatch.setenv("FSSPEC_S3_SECRET", "CANARY/plain+value")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9/CANARY-in-a-path/?x=y")
    assert redacted(said) == "refused: ***, at http://127.0.0.1:9/***/bucket"
    monkeypatch.setenv("SOME_TOKEN", "at")  # too short to be one
    assert redacted("data") == "data"


def test_log_lines_and_their_tracebacks_are_shown_without_them(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise OSError("https://me:CANARY@host/x")
    except OSError:
        logging.getLogger("some.library").exception("GET %s", "https://host/x?sig=CANARY")
    (record,) = caplog.records
    assert "CANARY" in logging.Formatter().format(record)
    written = RedactedFormatter().format(record)
    assert "CANARY" not in written
    assert "OSError: https://***@host/x" in written


@pytest.mark.parametrize("how", ["fail()", "thread = threading.Thread(target=fail); thread.start(); thread.join()"])
def test_what_nobody_caught_is_shown_without_them(how: str) -> None:
    script = f"""
import threading
from grid.contract.credentials import redact_tracebacks

def fail():
    try:
        raise OSError("https://me:" + "CANARY" + "@host/x")
    except OSError as error:
        raise ValueError("the storage") from error

INSTALL
{how}
"""
    for install, shown in (("", "https://me:CANARY@host/x"), ("redact_tracebacks()", "https://***@host/x")):
        code = script.replace("INSTALL", install)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert f"OSError: {shown}\n" in done.stderr
        assert "ValueError: the storage\n" in done.stderr
