"""Importing workflows plugins: each alone, none able to hurt the host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rawr.plugins.loader import LoadedPlugin, PluginLoadError, load_workflows_plugin
from rawr.testing.workspace import make_instance
from rawr.workspace.discovery import Plugin, discover

MANIFEST = '[tool.rawr]\nkind = "workflows"\ncapability = "c"\n'
HANDLER = """
from rawr.sdk import desk_handler

@desk_handler("x.work")
def work(received, ctx):
    return {answer}
"""


def plugin(root: Path, files: dict[str, str], *, name: str = "x", entry: str | None = None) -> Plugin:
    manifest = MANIFEST + (f'entry = "{entry}"\n' if entry else "")
    make_instance(root, files={f"plugins/workflows/{name}/{file}": text for file, text in files.items()})
    (root / "plugins/workflows" / name / "pyproject.toml").write_text(manifest)
    found = discover(root).find(name)
    assert found is not None
    return found


def loaded(root: Path, files: dict[str, str], **options: str) -> LoadedPlugin:
    return load_workflows_plugin(root, plugin(root, files, **options))


def refused(root: Path, files: dict[str, str], **options: str) -> str:
    with pytest.raises(PluginLoadError) as raised:
        loaded(root, files, **options)
    assert raised.value.code == "PLUGIN_LOAD_FAILED"
    return raised.value.message


def test_a_file_gives_its_handlers_and_workflows(tmp_path: Path) -> None:
    text = HANDLER.format(answer=1) + (
        "from rawr.sdk import workflow_from\n"
        "workflows = [workflow_from({'workflowId': 'w', 'version': 1, 'name': 'W', 'entryDeskId': 'a', 'desks': [],"
        " 'handoffs': []})]\n"
        "def unmarked(received, ctx): pass\n"
        "alias = work\n"
    )
    found = loaded(tmp_path, {"plugin.py": text})
    assert list(found.handlers) == ["x.work"]
    assert found.handlers["x.work"]({}, None) == 1
    assert [workflow.workflow_id for workflow in found.workflows] == ["w"]


def test_a_package_may_import_its_own_modules(tmp_path: Path) -> None:
    files = {"code/__init__.py": "from .work import work\n", "code/work.py": HANDLER.format(answer=2)}
    assert list(loaded(tmp_path, files, entry="code").handlers) == ["x.work"]
    assert list(loaded(tmp_path, files, entry="code/__init__.py").handlers) == ["x.work"]


def test_a_plugin_may_offer_nothing(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"plugin.py": ""})
    assert found == LoadedPlugin(code=found.code, handlers={}, workflows=())


def test_plugins_of_two_instances_in_one_process_do_not_meet(tmp_path: Path) -> None:
    one = loaded(tmp_path / "one", {"plugin.py": HANDLER.format(answer="'one'")})
    two = loaded(tmp_path / "two", {"plugin.py": HANDLER.format(answer="'two'")})
    assert one.handlers["x.work"]({}, None) == "one"
    assert two.handlers["x.work"]({}, None) == "two"


def test_folders_whose_names_look_alike_are_two_plugins(tmp_path: Path) -> None:
    def package(answer: str) -> dict[str, str]:
        return {
            "code/__init__.py": "from .late import work\n",
            "code/late.py": HANDLER.format(answer="later()")
            + "\ndef later():\n    from .last import value\n    return value\n",
            "code/last.py": f"value = {answer!r}\n",
        }

    dash = loaded(tmp_path, package("dash"), name="a-b", entry="code")
    underscore = loaded(tmp_path, package("underscore"), name="a_b", entry="code")
    assert dash.handlers["x.work"]({}, None) == "dash"
    assert underscore.handlers["x.work"]({}, None) == "underscore"


def test_a_changed_plugin_is_imported_anew(tmp_path: Path) -> None:
    files = {"code/__init__.py": "from .work import work\n", "code/work.py": HANDLER.format(answer=1)}
    assert loaded(tmp_path, files, entry="code").handlers["x.work"]({}, None) == 1
    files["code/work.py"] = HANDLER.format(answer=10_000)
    assert loaded(tmp_path, files, entry="code").handlers["x.work"]({}, None) == 10_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def (:\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("from rawr.sdk import desk_handler\ndesk_handler(' ')\n", "BadInputError: a desk handler needs a name"),
        ("from rawr.sdk import workflow_from\nworkflow_from({})\n", "WorkflowShapeError: workflow ?: Object missing"),
    ],
)
def test_whatever_an_import_raises_is_told_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    message = refused(tmp_path, {"plugin.py": text})
    entry = tmp_path / "plugins/workflows/x/plugin.py"
    assert message.startswith(f"{entry} cannot be imported: {why}")
    if "SyntaxError" not in why:
        assert f"({entry}:" in message
    assert not [
        name for name in sys.modules if name.startswith("rawr_plugin_x") and str(tmp_path) in repr(sys.modules[name])
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("workflows = 'w'\n", "`workflows` of x must be a tuple of Workflow values"),
        ("workflows = [{}]\n", "`workflows` of x must be a tuple of Workflow values"),
        (
            HANDLER.format(answer=1) + HANDLER.replace("work(", "other(").format(answer=1),
            "x has two desk handlers called x.work",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, why: str) -> None:
    assert refused(tmp_path, {"plugin.py": text}) == why


def test_an_object_that_raises_when_looked_at_is_no_handler(tmp_path: Path) -> None:
    text = (
        "class Trap:\n"
        "    def __call__(self): pass\n"
        "    def __getattr__(self, name): raise RuntimeError(name)\n"
        "trap = Trap()\n" + HANDLER.format(answer=1)
    )
    assert list(loaded(tmp_path, {"plugin.py": text}).handlers) == ["x.work"]


@pytest.mark.parametrize("entry", ["missing.py", "empty", "../other/plugin.py", "/etc/hostname", "link.py", "loop"])
def test_an_entry_that_is_missing_or_leads_out_of_the_plugin_is_refused(tmp_path: Path, entry: str) -> None:
    make_instance(tmp_path, files={"plugins/workflows/other/plugin.py": "raise AssertionError('imported')\n"})
    folder = tmp_path / "plugins/workflows/x"
    (folder / "empty").mkdir(parents=True)
    (folder / "link.py").symlink_to("../other/plugin.py")
    (folder / "loop").symlink_to("loop")
    message = refused(tmp_path, {}, entry=entry)
    assert "has no" in message or "leads out of" in message


HOOK = """
from rawr.sdk import on_finished

@on_finished("x.notify"{of})
def {name}(run, fx):
    return {name!r}
"""


def test_finished_hooks_are_found_with_what_they_are_for(tmp_path: Path) -> None:
    text = HOOK.format(name="every", of="") + "alias = every\n" + HANDLER.format(answer=1)
    found = loaded(tmp_path, {"plugin.py": text})
    assert [(one.mark.name, one.mark.workflow_id, one.call(None, None)) for one in found.finished_hooks] == [
        ("x.notify", None, "every")
    ]
    (of_one,) = loaded(tmp_path, {"plugin.py": HOOK.format(name="one", of=", workflow_id='w'")}).finished_hooks
    assert of_one.mark.workflow_id == "w"


def test_two_finished_hooks_of_one_name_are_refused(tmp_path: Path) -> None:
    text = HOOK.format(name="one", of="") + HOOK.format(name="two", of="")
    assert refused(tmp_path, {"plugin.py": text}) == "x has two finished hooks called x.notify"


def test_a_finished_hook_needs_a_name(tmp_path: Path) -> None:
    assert "needs a name" in refused(tmp_path, {"plugin.py": "from rawr.sdk import on_finished\non_finished(' ')\n"})


def test_an_edit_in_the_same_second_is_imported_and_not_what_was_compiled_before(tmp_path: Path) -> None:
    first = loaded(tmp_path, {"plugin.py": HANDLER.format(answer=1)})
    source = tmp_path / "plugins/workflows/x/plugin.py"
    at = source.stat().st_mtime
    second_text = HANDLER.format(answer=2)
    source.write_text(second_text)
    os.utime(source, (at, at))
    second = loaded(tmp_path, {})
    assert (first.handlers["x.work"]({}, None), second.handlers["x.work"]({}, None)) == (1, 2)
    assert first.code != second.code
    source.write_text(HANDLER.format(answer=1))
    assert loaded(tmp_path, {}).code == first.code
    assert first.code.startswith("x@")


def test_a_plugin_that_never_stays_the_same_while_it_is_imported_is_refused(tmp_path: Path) -> None:
    text = "import os, pathlib\npathlib.Path(__file__).with_name('count.txt').write_bytes(os.urandom(8))\n"
    assert "changed 3 times while it was imported" in refused(tmp_path, {"plugin.py": text})
