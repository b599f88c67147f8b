"""`rawr plugins web …`: which web plugins the host serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

if TYPE_CHECKING:
    from rawr.plugins.status import WebPluginList, WebPluginRow
    from rawr.state.store import RepoStateStore

_plugin_id = click.argument("plugin_id", metavar="ID")


@command("list", "List web plugins.")
def list_(invocation: Invocation) -> Outcome:
    found = _found(invocation)
    rows = [f"{_mark(row)}  {row.id}" for row in found.plugins]
    return Outcome(data=_data(found), text="\n".join(rows) or "this HQ has no web plugin")


@command("status", "Show which web plugins are enabled and can be served.")
def status(invocation: Invocation) -> Outcome:
    found = _found(invocation)
    rows = [f"{_mark(row)}  {row.id}  {row.module or 'no module: build the plugin'}" for row in found.plugins]
    return Outcome(data=_data(found), text="\n".join(rows) or "this HQ has no web plugin")


@command("enable", "Enable a web plugin.", dry_run=True)
@_plugin_id
def enable(invocation: Invocation, plugin_id: str) -> Outcome:
    """ID is the plugin's id or the name of its folder. A running server serves it from its next call on.

    An enabled module runs with the authority of whoever opens it.
    """
    from rawr.plugins import enable as change

    root = invocation.instance.root
    if invocation.dry_run:
        return _planned("enable", change.plugin_to_enable(root, plugin_id).plugin_id, root=str(root))
    plugin, state = change.enable(root, _store(invocation), plugin_id)
    data = {"pluginId": plugin.plugin_id, "enabled": True, "state": msgspec.to_builtins(state)}
    return Outcome(data=data, text=f"enabled {plugin.plugin_id}")


@command("disable", "Disable a web plugin.", dry_run=True)
@_plugin_id
def disable(invocation: Invocation, plugin_id: str) -> Outcome:
    from rawr.plugins import enable as change

    root = invocation.instance.root
    if invocation.dry_run:
        return _planned("disable", plugin_id, root=str(root))
    disabled, state = change.disable(root, _store(invocation), plugin_id)
    data = {"pluginId": disabled, "enabled": False, "state": msgspec.to_builtins(state)}
    return Outcome(data=data, text=f"disabled {disabled}")


def _planned(action: str, plugin_id: str, *, root: str) -> Outcome:
    planned = {"action": action, "pluginId": plugin_id, "workspaceRoot": root}
    return Outcome(data={"planned": planned}, text=f"would {action} {plugin_id} in {root}")


def _found(invocation: Invocation) -> WebPluginList:
    from rawr.plugins.status import web_plugins

    found = web_plugins(invocation.instance.root, _store(invocation))
    for fault in found.faults:
        invocation.warn(fault)
    return found


def _data(found: WebPluginList) -> Any:
    data = msgspec.to_builtins(found)
    del data["faults"]  # they are the warnings
    return data


def _mark(row: WebPluginRow) -> str:
    return click.style("enabled ", fg="green") if row.enabled else "disabled"


def _store(invocation: Invocation) -> RepoStateStore:
    from rawr.clock import SystemClock
    from rawr.state.store import RepoStateStore

    return RepoStateStore(invocation.instance.root, SystemClock(), notify=invocation.warn)
