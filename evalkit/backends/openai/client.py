"""Asks one server, so many requests at once, until it answers."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeVar

import httpx2

from evalkit.backends.openai.endpoint import ApiKey
from evalkit.backends.openai.retry import LONGEST_WAIT, TRANSIENT, Retries, TransientError, retry_after
from evalkit.backends.openai.wire import GarbledError
from evalkit.errors import EngineError

log = logging.getLogger(__name__)
Answered = TypeVar("Answered")

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_MESSAGE_LENGTH = 300
_TELL_SECONDS = 30.0  # a wait that people should know of
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]+")


class RefusedError(Exception):
    """The server says no, and will say no again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GaveUpError(EngineError):
    """No usable answer in as many tries as there may be."""

    def __init__(self, message: str, what: str, status: int | None) -> None:
        """what: the last failure alone; status: of the last answer, if there was one."""
        super().__init__(message)
        self.what = what
        self.status = status


class Client:
    """One server's client; belongs to the event loop that opened it."""

    def __init__(self, url: str, key: ApiKey | None, retries: Retries, concurrency: int, timeout: float) -> None:
        """url: base; timeout: seconds for one answer, whole."""
        self.url = url
        self._key = key
        self._retries = retries
        self._timeout = timeout
        self._gate = asyncio.Semaphore(concurrency)
        # An answer may take as long as `timeout`; silence is bounded by the same, per try.
        self._http = httpx2.AsyncClient(
            headers={"Content-Type": "application/json", **(key.header() if key else {})},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None),
            verify=url.startswith("https:"),  # reading the certificates takes a while; redirects are never followed
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

    async def close(self) -> None:
        """Let all connections go."""
        async with asyncio.timeout(_CLOSE_SECONDS):
            await self._http.aclose()

    async def get(self, path: str, read: Callable[[Any], Answered], attempts: int | None = None) -> Answered:
        """What `read` makes of the answer to a GET; see `post`."""
        return await self._ask("GET", path, None, read, attempts, None)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], Answered],
        attempts: int | None = None,
        failures: int | None = None,
    ) -> Answered:
        """What `read` makes of the JSON that answers a POST; a GarbledError of it counts as no answer.

        path: below the base address, or whole; failures: answers 500 or 501 that count as a refusal, for trying what
        a server can do. Raises RefusedError, or GaveUpError after as many tries as there may be.
        """
        return await self._ask("POST", path, body, read, attempts, failures)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], Answered],
        attempts: int | None,
        failures: int | None,
    ) -> Answered:
        url = path if "://" in path else f"{self.url}/{path}"
        # ASCII only: a prompt may hold half a surrogate pair, which UTF-8 cannot carry.
        content = None if body is None else json.dumps(body).encode("ascii")
        num_failures = 0
        for attempt in count(1):
            try:
                async with self._gate:
                    answer = read(await self._once(method, url, content))
            except GarbledError as error:
                failure = TransientError(self._clean(str(error)))
            except TransientError as error:
                failure = error
                num_failures += error.status in (500, 501)
                if num_failures == failures:
                    raise RefusedError(error.status or 500, str(error)) from None
            else:
                self._retries.num_answered += 1
                return answer
            await asyncio.sleep(self._pause(attempt, attempts or self._retries.attempts, failure))
        raise AssertionError("unreachable")

    async def _once(self, method: str, url: str, content: bytes | None) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._http.request(method, url, content=content)
        except (TimeoutError, httpx2.TimeoutException):
            raise TransientError(f"no answer within {self._timeout:g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise TransientError(f"{type(error).__name__}: {self._clean(str(error))}") from None
        if response.is_success:
            try:
                return json.loads(response.content)
            except (ValueError, RecursionError):
                raise TransientError("an answer that is not JSON") from None
        message = f"{response.status_code} {self._clean(_message(response.content))}".strip()
        if response.status_code in TRANSIENT:
            raise TransientError(message, retry_after(response.headers.get("retry-after")), response.status_code)
        raise RefusedError(response.status_code, message)

    def _pause(self, attempt: int, attempts: int, failure: TransientError) -> float:
        """Seconds until the next try. Raises GaveUpError where there is none."""
        asked = failure.wait
        if asked is not None and asked > LONGEST_WAIT:
            raise self._give_up(f"asks to wait {asked:,.0f} s", failure)
        if attempt >= attempts:
            raise self._give_up(f"gave no usable answer in {attempt} tries", failure)
        if self._retries.exhausted:
            raise self._give_up(f"failed {self._retries.num_retries:,} times in all (backend.retry_budget)", failure)
        self._retries.num_retries += 1
        pause = self._retries.pause(attempt, asked)
        if pause > _TELL_SECONDS:
            log.info("%s: %s; trying again in %.0f s", self.url, failure, pause)
        return pause

    def _give_up(self, what: str, failure: TransientError) -> GaveUpError:
        message = (
            f"the server at {self.url} {what}, last: {failure}; every finished answer is kept, run the same command "
            f"again to go on"
        )
        return GaveUpError(message, str(failure), failure.status)

    def _clean(self, text: str) -> str:
        """A server's words for a message: one line, short, without the key."""
        line = _UNPRINTABLE.sub(" ", self._key.hide(text) if self._key else text).strip()
        return line if len(line) <= _MESSAGE_LENGTH else line[:_MESSAGE_LENGTH] + " …"


def _message(content: bytes) -> str:
    """What an error's body says, in the shapes that servers use."""
    text = content[: 1 << 16].decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text
    for name in ("error", "detail", "message"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return value if isinstance(value, str) else json.dumps(value)
