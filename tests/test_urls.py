from __future__ import annotations

import pytest

from kdscale.urls import drop_password, has_password, hide_passwords

SECRET = [
    ("postgresql+psycopg://me:s3cret@db:5432/team", "postgresql+psycopg://me:***@db:5432/team"),
    ("http://me:s3cret@server/mlflow", "http://me:***@server/mlflow"),
    ("https://s3cret@server", "https://***@server"),
    ("http://me:s3c/r@et@server", "http://me:***@server"),
    ("storage={url: 'postgresql://me:s3cret@h/d'}", "storage={url: 'postgresql://me:***@h/d'}"),
    ("postgresql:///d?host=h&password=s3cret", "postgresql:///d?host=h&password=***"),
    ("https://h/?access_token=s3cret&x=1", "https://h/?access_token=***&x=1"),
    ("a (http://me:s3cret@h) failed", "a (http://me:***@h) failed"),
]
OPEN = [
    "http://127.0.0.1:5000/path@v1",
    "sqlite:////abs/olute.db",
    "postgresql://me@db/team",
    "me@example.org: write to http://h",
    "http://me:***@h",
    "c:\\windows",
    "not a url [",
]


@pytest.mark.parametrize(("text", "hidden"), SECRET)
def test_a_password_is_hidden(text: str, hidden: str) -> None:
    assert has_password(text)
    assert hide_passwords(text) == hidden
    assert not has_password(hidden)


@pytest.mark.parametrize("text", OPEN)
def test_what_has_none_stays_as_it_is(text: str) -> None:
    assert not has_password(text)
    assert hide_passwords(text, text) == text


def test_a_known_password_is_hidden_where_it_stands_alone() -> None:
    said = 'password "s/3" of s%2F3 is wrong'
    assert hide_passwords(said, "http://me:s%2F3@h") == 'password "***" of *** is wrong'


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:s3cret@db/team", "postgresql://me@db/team"),
        ("postgresql:///d?password=s3cret", "postgresql:///d"),
        ("postgresql:///d?password=s3cret&host=h", "postgresql:///d?host=h"),
        ("https://s3cret@server/x", "https://server/x"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_without_it_the_rest_of_a_url_works(url: str, kept: str) -> None:
    assert drop_password(url) == kept
