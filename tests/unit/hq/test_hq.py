"""The default composition, and loading what an instance says it is made of."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from rawr.execution.program import FUNCTION_ID
from rawr.hq import Manifest, ManifestLoadError, compose, load_manifest
from rawr.testing.workspace import make_instance

PROJECT = Path(__file__).resolve().parents[3]
RPC_PATHS = [
    "coordination/listWorkflows",
    "coordination/saveWorkflow",
    "coordination/getWorkflow",
    "coordination/validateWorkflow",
    "coordination/queueRun",
    "coordination/getRunStatus",
    "coordination/getRunTimeline",
]


def pyproject(capability: str) -> str:
    return f'[tool.rawr]\nkind = "workflows"\ncapability = "{capability}"\n'


def package(capability: str) -> str:
    return json.dumps({"rawr": {"kind": "web", "capability": capability}})


def handler(name: str) -> str:
    return (
        f"from rawr.sdk import desk_handler\n\n@desk_handler({name!r})\ndef work(received, ctx):\n    return received\n"
    )


def hook(name: str) -> str:
    return f"from rawr.sdk import on_finished\n\n@on_finished({name!r}, workflow_id='w')\ndef tell(run, fx): pass\n"


def flow(workflow_id: str) -> str:
    document = {"workflowId": workflow_id, "version": 1, "name": "W", "entryDeskId": "a", "desks": [], "handoffs": []}
    return f"from rawr.sdk import workflow_from\nworkflows = (workflow_from({document!r}),)\n"


def test_an_instance_without_plugins_has_the_published_procedures(tmp_path: Path) -> None:
    manifest = compose(make_instance(tmp_path))
    assert [procedure.rpc_path for procedure in manifest.procedures] == [*RPC_PATHS, "state/getRuntimeState"]
    (capability,) = manifest.capabilities
    assert (capability.name, capability.path_prefix) == ("coordination", "/coordination")
    assert [procedure.rpc_path for procedure in capability.procedures] == RPC_PATHS
    assert [function.function_id for function in manifest.functions] == [FUNCTION_ID]
    assert (manifest.desk_handlers, manifest.workflows, manifest.web_mounts, manifest.faults) == ({}, (), (), ())


def test_plugins_bring_handlers_workflows_and_web_mounts(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/workflows/flow/pyproject.toml": pyproject("flow"),
            "plugins/workflows/flow/plugin.py": handler("flow.work") + flow("w"),
            "plugins/web/page/package.json": package("page"),
            "plugins/web/page/dist/web.js": "export const mount = 1;\n",
            "plugins/web/unbuilt/package.json": package("unbuilt"),
        },
    )
    manifest = compose(root)
    assert list(manifest.desk_handlers) == ["flow.work"]
    assert [workflow.workflow_id for workflow in manifest.workflows] == ["w"]
    assert [(mount.plugin_id, mount.module_path) for mount in manifest.web_mounts] == [
        ("page", root / "plugins/web/page/dist/web.js")
    ]
    assert manifest.faults == ()


def test_code_of_plugins_that_are_not_workflows_is_never_imported(tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'imported')!r}, 'w')\n"
    files = {}
    for root, kind in (("web", "web"), ("cli", "toolkit"), ("agents", "agent"), ("api", "api")):
        folder = f"plugins/{root}/trap-{root}"
        files[f"{folder}/pyproject.toml"] = (
            f'[tool.rawr]\nkind = "{kind}"\ncapability = "{root}"\nentry = "plugin.py"\n'
        )
        for name in ("plugin.py", "__init__.py", "server.py", "dist/server.py", "conftest.py"):
            files[f"{folder}/{name}"] = trap
    manifest = compose(make_instance(tmp_path, files=files))
    assert manifest.faults == ()
    assert not (tmp_path / "imported").exists()


def test_a_bad_plugin_is_a_fault_and_the_others_are_composed(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/workflows/bad-manifest/pyproject.toml": "[tool",
            "plugins/workflows/bad-code/pyproject.toml": pyproject("bad"),
            "plugins/workflows/bad-code/plugin.py": "1 / 0\n",
            "plugins/workflows/good/pyproject.toml": pyproject("good"),
            "plugins/workflows/good/plugin.py": handler("good.work"),
        },
    )
    manifest = compose(root)
    assert list(manifest.desk_handlers) == ["good.work"]
    assert [(Path(fault.path).name, fault.code) for fault in manifest.faults] == [
        ("bad-manifest", "PLUGIN_MANIFEST_INVALID"),
        ("bad-code", "PLUGIN_LOAD_FAILED"),
    ]
    assert "ZeroDivisionError" in manifest.faults[1].message


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ((pyproject("a"), handler("same")), (pyproject("b"), handler("same")), "desk handler same"),
        ((pyproject("a"), flow("same")), (pyproject("b"), flow("same")), "workflow same"),
        ((pyproject("same"), ""), (pyproject("same"), ""), "capability same of plugins/workflows"),
    ],
)
def test_a_name_that_two_plugins_want_stays_with_the_first_and_the_fault_names_both(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str], name: str
) -> None:
    files = {}
    for folder, (manifest_text, code) in (("one", first), ("two", second)):
        files[f"plugins/workflows/{folder}/pyproject.toml"] = manifest_text
        files[f"plugins/workflows/{folder}/plugin.py"] = code
    (fault,) = compose(make_instance(tmp_path, files=files)).faults
    assert fault.code == "PLUGIN_NAME_CLASH"
    assert fault.message == f"{name} belongs to one already; two was left out"
    assert Path(fault.path).name == "two"


def test_the_capability_coordination_is_taken(tmp_path: Path) -> None:
    files = {
        "plugins/workflows/x/pyproject.toml": pyproject("coordination"),
        "plugins/workflows/x/plugin.py": handler("x.work"),
    }
    manifest = compose(make_instance(tmp_path, files=files))
    assert manifest.desk_handlers == {}
    assert manifest.faults[0].message == (
        "capability coordination of plugins/workflows belongs to rawr itself already; x was left out"
    )


def test_one_capability_may_have_a_plugin_in_each_root(tmp_path: Path) -> None:
    files = {
        "plugins/workflows/flow/pyproject.toml": pyproject("shared"),
        "plugins/workflows/flow/plugin.py": "",
        "plugins/web/page/package.json": package("shared"),
    }
    assert compose(make_instance(tmp_path, files=files)).faults == ()


def test_this_repository_is_an_instance_that_composes_without_faults() -> None:
    manifest = load_manifest(PROJECT)
    assert manifest.faults == ()
    assert "repo-briefing" in [workflow.workflow_id for workflow in manifest.workflows]
    assert "pulse" in [mount.dir_name for mount in manifest.web_mounts]
    wanted = {desk.handler for workflow in manifest.workflows for desk in workflow.desks}
    assert wanted <= set(manifest.desk_handlers)


def written(root: Path, text: str) -> Path:
    return make_instance(root, files={"rawr_hq.py": text})


HEAD = "from pathlib import Path\nfrom rawr.hq import Manifest, compose\n"


def test_an_instance_may_narrow_its_manifest(tmp_path: Path) -> None:
    text = HEAD + (
        "import msgspec\n\ndef manifest(root: Path) -> Manifest:\n"
        "    return msgspec.structs.replace(compose(root), capabilities=())\n"
    )
    manifest = load_manifest(written(tmp_path, text))
    assert isinstance(manifest, Manifest)
    assert manifest.capabilities == ()


def test_a_manifest_file_may_define_dataclasses(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses\n" + HEAD + "@dataclasses.dataclass\nclass Mine:\n"
        "    root: Path\n\ndef manifest(root):\n    return compose(Mine(root).root)\n"
    )
    assert load_manifest(written(tmp_path, text)).faults == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\n", " defines no function manifest(root)"),
        ("manifest = 3\n", " defines no function manifest(root)"),
        ("def manifest(root):\n    return None\n", ": manifest(root) gave NoneType instead of a Manifest"),
        ("x = 1\n1 / 0\n", ":2: ZeroDivisionError: division by zero"),
        ("def manifest(root):\n    x = 1\n    raise ValueError('no')\n", ":3: ValueError: no"),
        ("x = 1\ndef (:\n", ":2: SyntaxError: "),
        ("raise SystemExit('stop')\n", ":1: SystemExit: stop"),
        ("import no_such_module_anywhere\n", ":1: ModuleNotFoundError: "),
        ("open('/no/such/file')\n", ":1: FileNotFoundError: "),
        ("def manifest():\n    pass\n", ": TypeError: "),
        (
            HEAD + "import msgspec\ndef manifest(root):\n    one = compose(root)\n"
            "    return msgspec.structs.replace(one, procedures=one.procedures * 2, functions=one.functions * 2)\n",
            ": procedure coordination/listWorkflows is there twice; ",
        ),
        (
            HEAD + "import msgspec\ndef manifest(root):\n    one = compose(root)\n    c = one.capabilities[0]\n"
            "    return msgspec.structs.replace(one, capabilities=(msgspec.structs.replace(c, path_prefix='/x'),))\n",
            ": procedure coordination/listWorkflows is not below /x of coordination; ",
        ),
    ],
)
def test_a_manifest_that_cannot_be_loaded_says_where_and_why(tmp_path: Path, text: str, why: str) -> None:
    root = written(tmp_path, text)
    with pytest.raises(ManifestLoadError) as raised:
        load_manifest(root)
    assert raised.value.code == "MANIFEST_LOAD_FAILED"
    assert raised.value.message.startswith(f"{root / 'rawr_hq.py'}{why}")


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestLoadError) as raised:
        load_manifest(tmp_path)
    assert raised.value.message == f"{tmp_path / 'rawr_hq.py'} is missing"
    assert raised.value.fix == "make an instance with: rawr init DIR"


def test_manifests_of_two_instances_in_one_process_do_not_meet(tmp_path: Path) -> None:
    texts = [HEAD + f"NAME = {name!r}\ndef manifest(root):\n    return compose(root)\n" for name in ("one", "two")]
    for number, text in enumerate(texts):
        load_manifest(written(tmp_path / str(number), text))
    modules = [
        module
        for module in list(sys.modules.values())
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}{os.sep}")
    ]
    assert sorted(module.NAME for module in modules) == ["one", "two"]


def test_a_finished_hook_belongs_to_one_plugin(tmp_path: Path) -> None:
    files = {f"plugins/workflows/{name}/plugin.py": hook("notify") for name in ("a", "b")}
    manifests = {f"plugins/workflows/{name}/pyproject.toml": pyproject(name) for name in ("a", "b")}
    manifest = compose(make_instance(tmp_path, files={**files, **manifests}))
    assert [(one.name, one.workflow_id) for one in manifest.finished_hooks] == [("notify", "w")]
    assert [(fault.code, "finished hook notify belongs to a" in fault.message) for fault in manifest.faults] == [
        ("PLUGIN_NAME_CLASH", True)
    ]
