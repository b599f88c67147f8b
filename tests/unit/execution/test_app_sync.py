"""Addresses and registrations that apps give: what may be called, whatever was written."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.execution.embedded.app_sync import AppRefusedError, answered_app, checked_url, registering_app
from rawr.execution.embedded.registration import UnsupportedFunctionError

hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["localhost", "127.1", "0x7f000001", "LOCALHOST", "localhost.", "127.0.0.1.evil.example", "[::1]"]),
    st.text(max_size=12),
)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "file", "ftp", ""]),
    st.sampled_from(["", "user@", "user:pw@", "localhost@", "127.0.0.1\\@"]),
    hosts,
    st.sampled_from(["", "/", ":80/api", "/api?x=1", "#localhost", "/a b", "@localhost/", "\\@localhost"]),
)


@given(urls)
def test_in_dev_mode_what_may_be_called_is_on_this_machine_for_who_calls_it_too(url: str) -> None:
    try:
        checked_url(url, only_loopback=True)
    except AppRefusedError:
        return
    host = httpx.URL(url).host  # as the transport reads it
    assert host == "localhost" or ipaddress.ip_address(host).is_loopback


@given(urls)
def test_what_may_be_called_is_plain_http_without_credentials(url: str) -> None:
    try:
        checked_url(url, only_loopback=False)
    except AppRefusedError:
        return
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    assert httpx.URL(url).userinfo == b""


KEYS = st.sampled_from(["url", "functions", "appName", "appVersion", "id", "steps", "triggers"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_a_registration_of_any_form_is_refused_with_a_reason(body: object) -> None:
    with pytest.raises((AppRefusedError, UnsupportedFunctionError)):
        registering_app(body, only_loopback=False)


def test_where_an_app_thinks_that_it_is_does_not_count_when_it_was_asked() -> None:
    told = {"app_id": "a", "functions": [], "url": "http://elsewhere/"}
    assert answered_app(told, url="http://127.0.0.1/x", only_loopback=True).url == "http://127.0.0.1/x"
