"""Reading credentials and labels out of headers."""

from __future__ import annotations

import pytest

from rawr.host.auth import bearer_secret, label_keeps_rpc, surface_label
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
    ("values", "label", "stays"),
    [
        ([], None, True),
        ([b"cli"], CallerClass.CLI, True),
        ([b" First-Party "], CallerClass.FIRST_PARTY, True),
        ([b"internal"], CallerClass.INTERNAL, True),
        ([b"in-process"], CallerClass.INTERNAL, True),
        ([b"trusted-service"], CallerClass.TRUSTED_SERVICE, True),
        ([b"external"], CallerClass.EXTERNAL, False),
        ([b"third-party"], CallerClass.EXTERNAL, False),
        ([b"runtime-ingress"], CallerClass.RUNTIME_INGRESS, False),
        ([b"browser"], CallerClass.UNLABELED, False),
        ([b""], CallerClass.UNLABELED, False),
        ([b"cli", b"external"], CallerClass.UNLABELED, False),
        ([b"cli", b"cli"], CallerClass.UNLABELED, False),
    ],
)
def test_a_label_only_narrows(values: list[bytes], label: CallerClass | None, stays: bool) -> None:
    found = surface_label([(b"x-rawr-caller-surface", value) for value in values])
    assert found is label
    assert label_keeps_rpc(found) is stays
