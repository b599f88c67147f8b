"""The keys of a real Inngest server: where they come from, and what is no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawr.errors import RawrError
from rawr.security.credentials import SecretExposedError
from rawr.security.inngest_keys import (
    InngestKeyInvalidError,
    InngestKeyMissingError,
    InngestKeys,
    read_inngest_keys,
)

SIGNING = "signkey-prod-" + "0a" * 32
ENVIRONMENT = {
    "INNGEST_EVENT_KEY": "event-key_1.~",
    "INNGEST_SIGNING_KEY": SIGNING,
    "INNGEST_SIGNING_KEY_FALLBACK": "0b" * 16,
}


def secret(folder: Path, name: str, text: str, mode: int = 0o600) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(mode)


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    keys = read_inngest_keys(tmp_path / "secrets", ENVIRONMENT)
    assert keys == InngestKeys(event_key="event-key_1.~", signing_key=SIGNING, signing_key_fallback="0b" * 16)
    assert "0a" not in repr(keys)
    assert "event" not in repr(keys)


def test_keys_come_from_files_where_the_environment_has_none(tmp_path: Path) -> None:
    secret(tmp_path, "inngest-event.key", "from-file\n")
    secret(tmp_path, "inngest-signing.key", "0c" * 32 + "\n")
    keys = read_inngest_keys(tmp_path, {"INNGEST_SIGNING_KEY": SIGNING, "INNGEST_EVENT_KEY": " "})
    assert keys == InngestKeys(event_key="from-file", signing_key=SIGNING, signing_key_fallback=None)
    assert read_inngest_keys(tmp_path, {}).signing_key == "0c" * 32


@pytest.mark.parametrize("name", ["INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY"])
def test_a_key_that_is_nowhere_is_named_with_both_its_places(tmp_path: Path, name: str) -> None:
    with pytest.raises(InngestKeyMissingError) as raised:
        read_inngest_keys(tmp_path, {**ENVIRONMENT, name: ""})
    assert raised.value.code == "ENGINE_KEY_MISSING"
    assert name in raised.value.message
    assert str(tmp_path / "inngest-") in raised.value.message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("INNGEST_SIGNING_KEY", "signkey-prod-"),
        ("INNGEST_SIGNING_KEY", "signkey-prod-abc"),
        ("INNGEST_SIGNING_KEY", "not-a-secret-we-show"),
        ("INNGEST_SIGNING_KEY_FALLBACK", "0g"),
        ("INNGEST_EVENT_KEY", "a/b"),
        ("INNGEST_EVENT_KEY", "a b"),
        ("INNGEST_EVENT_KEY", "x" * 257),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, name: str, key: str) -> None:
    with pytest.raises(InngestKeyInvalidError) as raised:
        read_inngest_keys(tmp_path, {**ENVIRONMENT, name: key})
    assert raised.value.code == "ENGINE_KEY_INVALID"
    assert name in raised.value.message
    assert key not in raised.value.message


@pytest.mark.parametrize(("mode", "error"), [(0o644, SecretExposedError), (0o600, InngestKeyInvalidError)])
def test_a_file_that_others_can_read_or_that_holds_no_key_is_refused(
    tmp_path: Path, mode: int, error: type[RawrError]
) -> None:
    secret(tmp_path, "inngest-signing.key", "\u00ff no key", mode)
    with pytest.raises(error, match=r"inngest-signing\.key"):
        read_inngest_keys(tmp_path, {"INNGEST_EVENT_KEY": "e"})
