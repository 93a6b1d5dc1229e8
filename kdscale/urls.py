"""Passwords and tokens in URLs: found, hidden in what people read, left out of what is kept."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_USER = r"(?P<before>[A-Za-z][\w+.-]*://[^/\s:@'\"]*)"
_PASSWORD = re.compile(_USER + r":(?!\d+(?:/|$))[^\s'\"]*@")
_TOKEN = re.compile(r"(?P<before>\bhttps?://)(?!\*\*\*@)[^/\s:@'\"]+@")
_QUERY = re.compile(
    r"(?P<before>[?&](?:\w*(?:password|passwd|pwd|token|secret)|api_?key)=)[^&\s'\"]+",
    re.IGNORECASE,
)


def hide_passwords(text: str, *urls: str) -> str:
    """Returns a text with every password and token in its URLs replaced by ``***``.

    Args:
        text: Any text.
        urls: URLs whose passwords are hidden also where they stand alone.
    """
    for url in urls:
        password = _split_password(url)
        for spelling in {password, unquote(password)} - {""}:
            text = text.replace(spelling, "***")
    text = _PASSWORD.sub(r"\g<before>:***@", text)
    text = _TOKEN.sub(r"\g<before>***@", text)
    return _QUERY.sub(r"\g<before>***", text)


def has_password(text: str) -> bool:
    """Whether a text has a URL with a password or token in it."""
    return hide_passwords(text) != text


def drop_password(url: str) -> str:
    """Returns a URL that still works where the password is known otherwise, as by PGPASSFILE."""
    url = _TOKEN.sub(r"\g<before>", _PASSWORD.sub(r"\g<before>@", url))
    base, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if not _QUERY.match(f"?{part}")]
    return f"{base}{mark}{'&'.join(kept)}".rstrip("?")


def _split_password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:  # not a URL at all
        return ""
