"""The apps whose functions an engine runs: what it offers, where each app is called, and the keys of both sides.

`OwnApp` is the one app of this process. `RegisteredApps` are all that have registered in the file, wherever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from rawr.clock import Clock
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.protocol import Call, Request, Trust, call_request, parse_functions, sync_request
from rawr.execution.embedded.registration import functions_of
from rawr.execution.embedded.store import EngineStore
from rawr.execution.ports import EngineCall, IngressResponse, RunCode

_UNAUTHORIZED: Final = 401


class Apps(Protocol):
    @property
    def trust(self) -> Trust: ...

    async def call(self, call: Call) -> IngressResponse:
        """Make the call where the function's app is.

        Raises:
            AppUnreachableError: nobody is there; nothing of the call has run.
        """
        ...

    async def offer(self, store: EngineStore, owner: str) -> Mapping[str, str]:
        """Have their functions registered and offered by `owner`; the version of each function."""
        ...

    async def keep_offered(self, store: EngineStore, owner: str) -> Mapping[str, str] | None:
        """As `offer`, from time to time, because others change the file too; None when nothing is new."""
        ...


class OwnApp:
    """The app of this process, asked for its functions when the engine starts."""

    def __init__(
        self, call: EngineCall, *, serve_url: str, signing_key: str, clock: Clock, code: RunCode | None = None
    ) -> None:
        self._call = call
        self._serve_url = serve_url
        self._key = signing_key
        self._clock = clock
        self._code = code
        self._app_id: str | None = None
        self._functions: tuple[RegisteredFunction, ...] = ()

    @property
    def trust(self) -> Trust:
        return Trust(keys=(self._key,))

    async def call(self, call: Call) -> IngressResponse:
        request = call_request(call, key=self._key, t=self._clock.now_ms() // 1000)
        return await self._call("POST", request.query, request.headers, request.body)

    async def offer(self, store: EngineStore, owner: str) -> Mapping[str, str]:
        """Raises SyncRefusedError, UnsupportedFunctionError: the functions cannot be registered."""
        request = sync_request(self._serve_url, key=self._key, t=self._clock.now_ms() // 1000)
        answer = await self._call("PUT", request.query, request.headers, request.body)
        app = parse_functions(answer, trust=self.trust)
        self._functions = functions_of(app["functions"], app.get("appVersion"))
        code = frozenset[str]() if self._code is None else self._code.offered()
        await store.register(app["app_id"], self._functions, owner, code, url=self._serve_url)
        self._app_id = app["app_id"]
        return {function.fn_id: function.version for function in self._functions}

    async def keep_offered(self, store: EngineStore, owner: str) -> Mapping[str, str] | None:
        del owner
        if self._app_id is not None:
            await store.register_if_unserved(self._app_id, self._functions)
        return None


class RegisteredApps:
    """Every app that is registered in the file, called at the address that it gave."""

    def __init__(self, call_at: Callable[[str], EngineCall], *, keys: tuple[str, ...], clock: Clock) -> None:
        """Without `keys` nothing is signed and nothing has to be."""
        self._call_at = call_at
        self._keys = keys
        self._clock = clock
        self._offered: Mapping[str, str] | None = None

    @property
    def trust(self) -> Trust:
        if not self._keys:
            return Trust(keys=None)
        return Trust(keys=self._keys, now_s=self._clock.now_ms() // 1000)

    async def call(self, call: Call) -> IngressResponse:
        return await self.ask(call.url, "POST", lambda key, t: call_request(call, key=key, t=t))

    async def ask(self, url: str, method: str, request_of: Callable[[str | None, int], Request]) -> IngressResponse:
        """The answer of the app at `url` to a request that is signed with the first of our keys that it knows."""
        send = self._call_at(url)
        for key in self._keys or (None,):
            request = request_of(key, self._clock.now_ms() // 1000)
            answer = await send(method, request.query, request.headers, request.body)
            if answer.status != _UNAUTHORIZED:
                break
        return answer

    async def offer(self, store: EngineStore, owner: str) -> Mapping[str, str]:
        self._offered = await store.offer_registered(owner)
        return self._offered

    async def keep_offered(self, store: EngineStore, owner: str) -> Mapping[str, str] | None:
        if await store.registered_versions() == self._offered:
            return None
        return await self.offer(store, owner)
