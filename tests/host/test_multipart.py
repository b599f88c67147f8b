"""Forms as browsers, Node and httpx write them, and forms that nobody should write."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.host.multipart import Field, MalformedFormError, parse_multipart
from rawr.host.orpc_values import File

TYPE = "multipart/form-data; boundary=b"


def form(*parts: str) -> bytes:
    return "".join(f"--b\r\n{part}\r\n" for part in parts).encode() + b"--b--\r\n"


def text_part(name: str, text: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'


def shown(fields: list[Field]) -> list[tuple[str, object]]:
    return [
        (field.name, (field.value.name, field.value.media_type, field.value.content))
        if isinstance(field.value, File)
        else (field.name, field.value)
        for field in fields
    ]


def test_texts_and_files_come_in_order() -> None:
    file = 'content-disposition: form-data; name="0"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhe\r\nllo'
    assert shown(parse_multipart(form(text_part("data", "é"), file), TYPE)) == [
        ("data", "é"),
        ("0", ("a.txt", "text/plain", b"he\r\nllo")),
    ]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b",
        'Multipart/Form-Data; boundary="b"',
        "multipart/form-data; charset=utf-8; BOUNDARY=b",
        "multipart/form-data; boundary=b; x=y",
    ],
)
def test_the_boundary_is_found_however_it_is_written(content_type: str) -> None:
    assert shown(parse_multipart(form(text_part("a", "1")), content_type)) == [("a", "1")]


def test_what_stands_before_and_after_the_form_does_not_count() -> None:
    body = b"preamble\r\n" + form(text_part("a", "1")) + b"epilogue"
    assert shown(parse_multipart(body, TYPE)) == [("a", "1")]


def test_a_form_without_parts_is_empty() -> None:
    assert parse_multipart(b"--b--\r\n", TYPE) == []


def test_names_are_unescaped_as_browsers_escape_them() -> None:
    part = 'Content-Disposition: form-data; name="a%22b"; filename="c%0D%0Ad%25.txt"\r\n\r\nx'
    (field,) = parse_multipart(form(part), TYPE)
    assert isinstance(field.value, File)
    assert (field.name, field.value.name) == ('a"b', "c\r\nd%25.txt")
    assert field.value.media_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(text_part("a", "1")), "multipart/form-data"),
        (form(text_part("a", "1")), "multipart/form-data; boundary="),
        (b"", TYPE),
        (b"--b", TYPE),
        (form(text_part("a", "1")).removesuffix(b"--\r\n"), TYPE),
        (form(text_part("a", "1")), "multipart/form-data; boundary=c"),
        (form("no headers"), TYPE),
        (form("Content-Disposition: form-data\r\n\r\nno name"), TYPE),
        (form('Content-Disposition: attachment; name="a"\r\n\r\nx'), TYPE),
        (form(f'x: {"y" * 5000}\r\nContent-Disposition: form-data; name="a"\r\n\r\nx'), TYPE),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--', TYPE),
        (form(*[text_part("a", "1")] * 1001), TYPE),
    ],
)
def test_a_form_that_is_not_whole_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(MalformedFormError):
        parse_multipart(body, content_type)


@given(st.lists(st.tuples(st.text('ab"é\r\n', min_size=1, max_size=5), st.binary(max_size=40)), min_size=1, max_size=4))
def test_files_that_httpx_sends_arrive_as_they_were(files: list[tuple[str, bytes]]) -> None:
    given_files = [(str(number), (name, content)) for number, (name, content) in enumerate(files)]
    request = httpx.Request("POST", "http://x/", files=given_files)
    fields = parse_multipart(request.read(), request.headers["content-type"])
    assert [(field.name, value.name, value.content) for field in fields if isinstance(value := field.value, File)] == [
        (number, name, content) for number, (name, content) in given_files
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedFormError):
        parse_multipart(body.replace(b"x", b"\r\n--b"), TYPE)
