"""The hash of a plugin: the same for the same code, another one for other code, and of nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.plugins.content import PluginContentError, content_hash, is_code

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}(\.py|\.json|\.toml)?", fullmatch=True).filter(is_code)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=20), min_size=1, max_size=6).filter(
    lambda tree: not any(a != b and b.startswith(f"{a}/") for a in tree for b in tree)
)


def write(root: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def hash_of(tree: dict[str, bytes]) -> str:
    with tempfile.TemporaryDirectory() as root:
        return content_hash(write(Path(root), tree))


@given(TREES, st.randoms())
def test_it_follows_from_names_and_bytes_in_whatever_order_they_were_written(
    tree: dict[str, bytes], dice: object
) -> None:
    shuffled = list(tree.items())
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a Random
    assert hash_of(tree) == hash_of(dict(shuffled))


@given(TREES, TREES)
def test_two_plugins_have_one_hash_exactly_if_they_are_the_same(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (hash_of(one) == hash_of(other)) == (one == other)


@given(TREES, st.binary(max_size=5))
def test_every_change_of_a_byte_a_name_or_a_file_changes_it(tree: dict[str, bytes], more: bytes) -> None:
    first = min(tree)
    rest = {name: content for name, content in tree.items() if name != first}
    changed = [rest, {**tree, first: tree[first] + b"x" + more}, {**tree, "zzz_new.py": more}]
    changed.append({**rest, f"{first}_": tree[first]})
    assert hash_of(tree) not in [hash_of(other) for other in changed]


@given(TREES, st.binary(max_size=5))
def test_caches_hidden_files_and_documents_for_people_do_not_count(tree: dict[str, bytes], noise: bytes) -> None:
    names = [
        "__pycache__/a.cpython-311.pyc",
        "sub/__pycache__/b.pyc",
        "old.pyc",
        ".cache/x",
        ".env",
        "node_modules/x/y.js",
    ]
    names += ["README.md", "readme", "docs_/README.rst", "CHANGELOG.md", "LICENSE"]
    names += ["venv/pyvenv.cfg", "venv/lib/x.py"]
    kept = {name: content for name, content in tree.items() if not name.startswith(("sub", "docs_", "venv"))}
    assert hash_of({**kept, **dict.fromkeys(names, noise)}) == hash_of(kept)


@given(TREES)
def test_permissions_times_links_and_the_place_of_the_folder_do_not_count(tree: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        plain, linked = write(Path(place, "plain"), tree), Path(place, "linked")
        shutil.copytree(plain, linked)
        before = content_hash(plain)
        for number, name in enumerate(sorted(tree)):
            os.chmod(plain / name, 0o755)
            os.utime(plain / name, (number, number))
            (linked / name).unlink()
            (linked / name).symlink_to(plain / name)
        assert content_hash(plain) == content_hash(linked) == before
        Path(place, "alias").symlink_to(plain, target_is_directory=True)
        assert content_hash(Path(place, "alias")) == before


def test_a_linked_folder_counts_as_its_content_and_a_link_upwards_ends(tmp_path: Path) -> None:
    shared = write(tmp_path / "shared", {"a.py": b"1"})
    real = write(tmp_path / "real", {"plugin.py": b"", "lib/a.py": b"1"})
    linked = write(tmp_path / "linked", {"plugin.py": b""})
    (linked / "lib").symlink_to(shared, target_is_directory=True)
    assert content_hash(linked) == content_hash(real)
    (linked / "loop").symlink_to(linked, target_is_directory=True)
    assert content_hash(linked) == content_hash(real)
    (shared / "a.py").write_bytes(b"2")
    assert content_hash(linked) != content_hash(real)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    before = content_hash(write(tmp_path / "p", {"plugin.py": b""}))
    os.mkfifo(tmp_path / "p" / "pipe")
    (tmp_path / "p" / "broken").symlink_to(tmp_path / "nowhere")
    assert content_hash(tmp_path / "p") == before


def test_too_much_and_what_is_not_there_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PluginContentError, match="nowhere cannot be read"):
        content_hash(tmp_path / "nowhere")
    write(tmp_path / "p", {"a.py": b"12345", "b.py": b"6"})
    monkeypatch.setattr("rawr.plugins.content.SIZE_MAX_BYTES", 5)
    with pytest.raises(PluginContentError, match="more than 10000 files or"):
        content_hash(tmp_path / "p")
