"""An app of the official SDK as a user would write it, in a process of its own: `app_program.py CONFIG.json`.

It serves its functions over plain ASGI, and writes down every step that it enters, so that tests can see what ran.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    from inngest._internal import comm_lib, server_lib

Config = dict[str, Any]


class Log:
    """Lines that survive the process: one write each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def functions(client: inngest.Inngest, config: Config, log: Log) -> Sequence[inngest.Function[Any]]:
    app = client.app_id

    async def step(ctx: inngest.Context, name: str, value: Any, pause_s: float = 0.0) -> Any:
        async def body() -> Any:
            log.note("enter", ctx.run_id, name)
            await asyncio.sleep(pause_s)
            return value

        return await ctx.step.run(name, body)

    @client.create_function(fn_id="chain", trigger=inngest.TriggerEvent(event=f"{app}/chain"), retries=20)
    async def chain(ctx: inngest.Context) -> Any:
        given = ctx.event.data["n"]
        total = 0
        for index in range(5):
            total += await step(ctx, f"s{index}", int(str(given)) + index, 0.01)
        await ctx.step.sleep("nap", datetime.timedelta(seconds=1))
        return {"total": total, "version": config.get("version", 1), "last": await step(ctx, "s5", "done")}

    @client.create_function(fn_id="helper", trigger=inngest.TriggerEvent(event=f"{app}/helper"), retries=20)
    async def helper(ctx: inngest.Context) -> Any:
        return {"helped": ctx.event.data.get("who")}

    @client.create_function(fn_id="asks", trigger=inngest.TriggerEvent(event=f"{app}/asks"), retries=20)
    async def asks(ctx: inngest.Context) -> Any:
        return await ctx.step.invoke("call helper", function=helper, data={"who": "asks"})

    @client.create_function(fn_id="waits", trigger=inngest.TriggerEvent(event=f"{app}/waits"), retries=20)
    async def waits(ctx: inngest.Context) -> Any:
        ids = await ctx.step.send_event(
            "tell", inngest.Event(name=f"{app}/helper", data={"who": str(ctx.event.data["key"])})
        )
        heard = await ctx.step.wait_for_event(
            "hear",
            event=f"{app}/answer",
            if_exp="event.data.key == async.data.key",
            timeout=datetime.timedelta(minutes=5),
        )
        return {"heard": None if heard is None else heard.data["word"], "sent": len(ids)}

    @client.create_function(fn_id="flaky", trigger=inngest.TriggerEvent(event=f"{app}/flaky"), retries=3)
    async def flaky(ctx: inngest.Context) -> Any:
        async def body() -> int:
            log.note("enter", ctx.run_id, "flaky")
            if ctx.attempt < 2:
                raise ValueError(f"not on attempt {ctx.attempt}")
            return ctx.attempt

        return await ctx.step.run("try", body)

    async def mourn(ctx: inngest.Context) -> None:
        log.note("mourn", ctx.event.data["run_id"])

    @client.create_function(
        fn_id="doomed", trigger=inngest.TriggerEvent(event=f"{app}/doomed"), retries=1, on_failure=mourn
    )
    async def doomed(ctx: inngest.Context) -> Any:
        raise ValueError("it cannot be")

    @client.create_function(fn_id="large", trigger=inngest.TriggerEvent(event=f"{app}/large"), retries=2)
    async def large(ctx: inngest.Context) -> Any:
        sizes = [len(str(await step(ctx, f"big{index}", "x" * 1_000_000))) for index in range(6)]
        return sum(sizes)

    @client.create_function(fn_id="sleeper", trigger=inngest.TriggerEvent(event=f"{app}/sleeper"))
    async def sleeper(ctx: inngest.Context) -> Any:
        await ctx.step.sleep("long", datetime.timedelta(days=1))
        return "never"

    @client.create_function(fn_id="fan", trigger=inngest.TriggerEvent(event=f"{app}/fan"), retries=20)
    async def fan(ctx: inngest.Context) -> Any:
        found = await ctx.group.parallel(tuple(partial(step, ctx, f"p{n}", n, 0.02) for n in range(4)))
        return sum(found)

    made: list[inngest.Function[Any]] = [chain, helper, asks, waits, flaky, doomed, large, sleeper, fan]
    return [one for one in made if one.id.removeprefix(f"{app}-") not in config.get("without", [])]


class App:
    """The serve handler of the SDK behind plain ASGI."""

    def __init__(self, handler: comm_lib.CommHandler) -> None:
        self._handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = dict(pair.split("=", 1) for pair in scope["query_string"].decode().split("&") if pair)
        request = comm_lib.CommRequest(
            body=body,
            headers=headers,
            public_path=None,
            query_params=query,
            raw_request=None,
            request_url=f"http://{headers['host']}{scope['path']}",
            serve_origin=None,
            serve_path=None,
        )
        match scope["method"]:
            case "POST":
                answer = await self._handler.post(request)
            case "PUT":
                answer = await self._handler.put(request)
            case _:
                answer = self._handler.get_sync(request)
        given = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": given})
        if answer.stream is None:
            await send({"type": "http.response.body", "body": answer.body_bytes()})
            return
        async for piece in answer.stream():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def main() -> None:
    config: Config = json.loads(Path(sys.argv[1]).read_text())
    client = inngest.Inngest(app_id=config["app"], is_production=not config["dev"])
    handler = comm_lib.CommHandler(
        client=client,
        enable_unauthed_sync=False,
        framework=server_lib.Framework.FAST_API,
        functions=list(functions(client, config, Log(Path(config["log"])))),
        streaming=inngest.Streaming.FORCE if config.get("streaming") else inngest.Streaming.DISABLE,
    )
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", config["port"]))
        settings = uvicorn.Config(App(handler), lifespan="off", log_level="warning")
        uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
