"""Reading credentials and labels out of headers."""

from __future__ import annotations

import pytest

from rawr.host.auth import (
    bearer_secret,
    comes_from_elsewhere,
    comes_from_our_page,
    cookie_values,
    gives_bearer,
    sends_json,
    surface_label,
)
from rawr.security.policy import CallerClass


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ([b"Bearer abc"], "abc"),
        ([b"bearer  abc "], "abc"),
        ([b"Bearer"], None),
        ([b"Bearer "], None),
        ([b"Basic abc"], None),
        ([b"abc"], None),
        ([b""], None),
        ([], None),
        ([b"Bearer abc", b"Bearer abc"], None),
        ([b"Bearer abc", b"Bearer xyz"], None),
    ],
)
def test_a_secret_is_the_one_bearer_header(values: list[bytes], secret: str | None) -> None:
    assert bearer_secret([(b"authorization", value) for value in values]) == secret


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ([], None),
        ([b"cli"], CallerClass.CLI),
        ([b" First-Party "], CallerClass.FIRST_PARTY),
        ([b"internal"], CallerClass.INTERNAL),
        ([b"in-process"], CallerClass.INTERNAL),
        ([b"trusted-service"], CallerClass.TRUSTED_SERVICE),
        ([b"external"], CallerClass.EXTERNAL),
        ([b"third-party"], CallerClass.EXTERNAL),
        ([b"runtime-ingress"], CallerClass.RUNTIME_INGRESS),
        ([b"browser"], CallerClass.UNLABELED),
        ([b""], CallerClass.UNLABELED),
        ([b"cli", b"external"], CallerClass.UNLABELED),
        ([b"cli", b"cli"], CallerClass.UNLABELED),
    ],
)
def test_a_label_that_is_unclear_means_nothing(values: list[bytes], label: CallerClass | None) -> None:
    assert surface_label([(b"x-rawr-caller-surface", value) for value in values]) is label


@pytest.mark.parametrize(
    ("values", "gives"),
    [([], False), ([b"Basic x"], False), ([b"bearer"], True), ([b"Basic x", b"Bearer y"], True)],
)
def test_who_gives_a_bearer_credential_is_not_looked_for_by_a_cookie(values: list[bytes], gives: bool) -> None:
    assert gives_bearer([(b"authorization", value) for value in values]) is gives


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        ([b"s=a"], ["a"]),
        ([b"x=1; s=a; s=b"], ["a", "b"]),
        ([b"s=a", b"s=b"], ["a", "b"]),
        ([b"s=; s; S=a; ss=b; =s"], []),
    ],
)
def test_every_cookie_of_the_name_is_looked_at(values: list[bytes], found: list[str]) -> None:
    assert cookie_values([(b"cookie", value) for value in values], "s") == found


OWN = (b"origin", b"http://127.0.0.1:3000")


@pytest.mark.parametrize(
    ("headers", "elsewhere", "ours"),
    [
        ([], False, False),
        ([OWN], False, True),
        ([(b"origin", b"HTTP://127.0.0.1:3000")], False, True),
        ([(b"sec-fetch-site", b"same-origin")], False, True),
        ([(b"sec-fetch-site", b"none")], False, False),
        ([OWN, (b"sec-fetch-site", b"same-origin")], False, True),
        ([OWN, (b"sec-fetch-site", b"same-site")], True, False),
        ([OWN, (b"sec-fetch-site", b"cross-site")], True, False),
        ([(b"sec-fetch-site", b"same-site")], True, False),
        ([(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")], True, False),
        ([OWN, OWN], True, False),
        ([(b"origin", b"null")], True, False),
        ([(b"origin", b"https://127.0.0.1:3000")], True, False),
        ([(b"origin", b"http://127.0.0.1:5173")], True, False),
        ([(b"origin", b"http://127.0.0.1:3000.evil.example")], True, False),
        # What a page without cookies of its own may say of itself is no proof.
        ([(b"sec-fetch-mode", b"no-cors")], False, False),
        ([(b"referer", b"http://127.0.0.1:3000/console/")], False, False),
    ],
)
def test_a_page_of_ours_is_one_that_the_browser_calls_so(
    headers: list[tuple[bytes, bytes]], elsewhere: bool, ours: bool
) -> None:
    given = [(b"host", b"127.0.0.1:3000"), *headers]
    assert comes_from_elsewhere(given, scheme="http") is elsewhere
    assert comes_from_our_page(given, scheme="http") is ours


def test_under_tls_our_page_has_another_origin() -> None:
    given = [(b"host", b"hq.example"), (b"origin", b"https://hq.example")]
    assert comes_from_our_page(given, scheme="https")
    assert comes_from_elsewhere(given, scheme="http")


@pytest.mark.parametrize(
    ("value", "is_json"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/jsonx", False),
        (b"text/plain;application/json", False),
        (b"", False),
    ],
)
def test_json_is_what_a_form_cannot_send(value: bytes, is_json: bool) -> None:
    assert sends_json([(b"content-type", value)]) is is_json
    assert not sends_json([(b"content-type", value), (b"content-type", value)])
