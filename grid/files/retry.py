"""Storage that fails for a while: which errors pass by themselves, and how long one waits for that."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from grid.contract.files.limits import answer_of
from grid.errors import one_line

log = logging.getLogger("kd_grid")

PATIENCE = 120.0  # seconds in all; one last try can add what a client waits for an answer
PROBE_PATIENCE = 10.0  # where nothing is lost
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0

PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EAGAIN),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE),
    *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETRESET),
}
# S3 asks for another try in these words, some of them with a status of 400 or 409.
ASK_AGAIN = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "Throttling"}
# By name, for none of these packages has to be installed: botocore's, aiohttp's, urllib3's.
NETWORK = {
    *("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "HTTPClientError"),
    *("ResponseParserError", "ClientConnectionError", "ClientPayloadError", "IncompleteRead"),
}
CERTIFICATE = {"SSLError", "ClientSSLError"}

T = TypeVar("T")


def retried(call: Callable[[], T], *, what: str, patience: float = PATIENCE, level: int = logging.WARNING) -> T:
    """What `call` returns, tried again with growing, random pauses while its errors pass by themselves."""
    until, longest, tries = time.monotonic() + patience, FIRST_PAUSE, 1
    while True:
        try:
            return call()
        except Exception as error:
            pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 (so that workers do not come back all at once)
            if not passes(error) or time.monotonic() + pause > until:
                raise
            tries += 1
            log.log(level, "%s: %s; try %d in %.1f s", what, one_line(error), tries, pause)
        time.sleep(pause)
        longest = min(2 * longest, LONGEST_PAUSE)


def passes(error: BaseException) -> bool:
    """Whether trying again can help: the storage is busy, or was not reached. What it refuses it refuses again."""
    answer = answer_of(error)
    if answer is not None:
        status, code = answer
        return code in ASK_AGAIN or status in (408, 429) or (status >= 500 and status != 501)
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & CERTIFICATE:
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & NETWORK)
