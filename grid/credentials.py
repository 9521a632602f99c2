"""Credentials come from the usual environment, never in a URL, which is written to plans, records and messages."""

from __future__ import annotations

import re
import urllib.parse

from grid.errors import UserError

# user:password@, whatever signs the password has.
_IN_PLACE = re.compile(r"://[^@]*:[^@]*@")
_IN_QUERY = re.compile(r"(?i)(token|secret|passw|signature|credential|api.?key|access.?key|^sig$|^key$)")


def has_credentials(url: str) -> bool:
    """Whether a URL says who one is: user:password@, or a part of its query that is called like a secret."""
    query = urllib.parse.parse_qsl(url.partition("?")[2]) if "://" in url else []
    return bool(_IN_PLACE.search(url)) or any(_IN_QUERY.search(name) for name, _ in query)


def check_no_credentials(url: str, *, what: str) -> None:
    """Raises UserError, without repeating them."""
    if has_credentials(url):
        raise UserError(f"{what} {url.partition('://')[0]}://...: holds credentials: leave them out of the URL")
