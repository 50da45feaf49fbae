"""One server: calls with retries, pauses and limits. What comes back is an Answer or an error that names its mend."""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from ..base import AdapterConfig, AdapterError, ModelUnavailable
from . import limits
from .addresses import AddressRefused
from .ladder import Ladder, is_about_format, ladder, wants_max_completion_tokens
from .options import EndpointOptions
from .reading import Answer, error_text, read

#: The same refusal for so many requests in a row, and not one success: it is the settings, not the pictures.
HOPELESS = 8
#: Seconds that a server has to load its model before its first answer; llama.cpp says 503 meanwhile.
FIRST_LOAD = 180.0
_RETRIED = {408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class FormatRefused(AdapterError):
    """The server refuses the request, perhaps because of its response format."""


class Client:
    """Calls to the server of an adapter's address. `call` is for many threads."""

    def __init__(self, config: AdapterConfig, options: EndpointOptions) -> None:
        """Imports openai. Raises ModelUnavailable when the key is missing."""
        import httpx2
        import openai

        from .transport import Guarded

        self.address, self.options = config.source.rstrip("/"), options
        self.key = api_key(options.api_key_env)
        self.host = urlsplit(self.address).hostname or ""
        transport = Guarded(options.concurrency)
        timeout = httpx2.Timeout(options.read_timeout, connect=options.connect_timeout)
        self._http = httpx2.Client(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False)
        self._openai = openai.OpenAI(
            api_key=self.key or "none",
            base_url=self.address,
            max_retries=0,
            http_client=self._http,
            timeout=timeout,
        )
        self._headers: Any = {} if self.key else {"Authorization": openai.Omit()}
        # both would be read from this machine's environment and sent to whatever server this is
        self._openai.organization = self._openai.project = None
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        self.limiter = limits.limiter(
            self.address, digest, options.concurrency, options.requests_per_minute, options.tokens_per_minute
        )
        self.ladder: Ladder = ladder(self.address, options.model)
        self._lock = threading.Lock()
        self._refusals: tuple[str, int] = ("", 0)
        self._successes = 0
        self._closed = threading.Event()

    def close(self) -> None:
        """Whoever waits gives up; calls in flight end with an error."""
        self._closed.set()
        self._openai.close()

    # -- one call, until it is answered -----------------------------------------------------------------------------
    def call(self, body: dict[str, Any], closed: Callable[[], bool] = lambda: False) -> Answer:
        """Ask, again where that may help.

        Raises AdapterError for this request, FormatRefused where its response format may be at fault, ModelUnavailable
        where no other request would fare better, limits.Closed once `closed` says so.
        """
        began, failures, successes = time.monotonic(), 0, self._successes
        while True:
            ticket = self.limiter.acquire(_tokens(body), lambda: closed() or self._closed.is_set())
            try:
                answer, remaining = self._once(body)
            except _Refused as refusal:
                self.limiter.refused(ticket, refusal.retry_after)
                if time.monotonic() - began > self.options.patience:
                    raise AdapterError(
                        f"{self.host} answered 'too many requests' for {self.options.patience:.0f} s. Lower the "
                        f"requests at once or per minute, or retry later. ({refusal})"
                    ) from None
                continue
            except _Failed as failure:
                self.limiter.failed(ticket)
                failures += 1
                waited = time.monotonic() - began
                if failures > self.options.retries and not (failure.away and waited < self._outage()):
                    raise self._given_up(failure, failures, successes) from None
                pause = limits.backoff(failures) if failure.retry_after is None else failure.retry_after
                self._sleep(min(pause, limits.LONGEST_PAUSE), closed)
                continue
            except BaseException:
                self.limiter.failed(ticket)
                raise
            self.limiter.succeeded(ticket, (answer.tokens_in or 0) + (answer.tokens_out or 0), remaining)
            with self._lock:
                self._successes += 1
                self._refusals = ("", 0)
            return answer

    def _outage(self) -> float:
        """Seconds for which a server that is away is waited for: it may be starting anew, or loading its model. One
        that was never there is not waited for beyond its tries."""
        return self.options.patience if self._successes else min(self.options.patience, FIRST_LOAD)

    def _given_up(self, failure: _Failed, tries: int, successes: int) -> AdapterError:
        """A server that answers nobody fails the run: ten thousand images need not find that out one by one."""
        message = f"{failure} ({tries} tries)" if tries > 1 else str(failure)
        if (failure.away or failure.unreachable) and self._successes == successes:
            return ModelUnavailable(
                f"{self.address} cannot be reached: {message}. Start the server, or correct the address."
            )
        return AdapterError(message)

    def _sleep(self, seconds: float, closed: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if closed() or self._closed.wait(min(left, 0.2)):
                raise limits.Closed

    def _once(self, body: dict[str, Any]) -> tuple[Answer, float | None]:
        """One request. Raises _Refused, _Failed, or what `_explained` makes of the server's error."""
        import httpx2
        import openai

        from .transport import DEADLINE, ReplyTooLarge

        DEADLINE.at = time.monotonic() + self.options.total_timeout
        body = self._named(body)
        try:
            raw = self._openai.with_raw_response.chat.completions.create(**body, extra_headers=self._headers)
            response = raw.http_response
            if 300 <= response.status_code < 400:
                raise _redirected(response.headers.get("location", ""), self.address)
            return read(response.content), _remaining(response.headers)
        except openai.APITimeoutError:
            raise _Failed(f"{self.host} did not answer in time") from None
        except openai.APIStatusError as error:
            raise self._explained(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, AddressRefused):
                raise ModelUnavailable(str(cause)) from None
            if isinstance(cause, ReplyTooLarge):
                raise AdapterError(f"{self.host}: {cause}.", permanent=True) from None
            raise _Failed(
                f"the line to {self.host} failed: {_words(cause)}",
                away=_is_down(cause) and self._successes > 0,
                unreachable=_is_down(cause),
            ) from None
        except AddressRefused as error:
            raise ModelUnavailable(str(error)) from None
        except ReplyTooLarge as error:
            raise AdapterError(f"{self.host}: {error}.", permanent=True) from None
        except httpx2.TimeoutException:
            raise _Failed(f"{self.host} did not answer in time") from None
        except httpx2.HTTPError as error:
            raise _Failed(f"the line to {self.host} failed: {_words(error)}") from None
        except AdapterError as error:  # a body that is no completion
            if isinstance(error, ModelUnavailable):
                raise
            raise _Failed(error.message) from None
        finally:
            DEADLINE.at = None

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        """The limit of the answer under the name that this server takes."""
        if self.ladder.max_completion_tokens and "max_tokens" in body:
            return {"max_completion_tokens" if k == "max_tokens" else k: v for k, v in body.items()}
        return body

    # -- what a status means ----------------------------------------------------------------------------------------
    def _explained(self, error: Any) -> Exception:
        status, headers = int(error.status_code), error.response.headers
        if 300 <= status < 400:
            return _redirected(headers.get("location", ""), self.address)
        text = self._redacted(error_text(error.body) if error.body else error.response.text[:200] or error.message)
        said = f"{self.host} answered {status}: {text}"
        code = error.body.get("code") if isinstance(error.body, dict) else None
        if status == 429 and (code == "insufficient_quota" or "insufficient_quota" in text or "billing" in text):
            return ModelUnavailable(f"The account has no credit left. {said}")
        if status == 429 or (status in (503, 529) and retry_after(headers) is not None):
            return _Refused(said, retry_after(headers))
        if status in (401, 403):
            named = self.options.api_key_env
            mend = f"Correct the key in {named}." if named else "Name the variable that holds its key."
            return ModelUnavailable(f"{said}. {mend}")
        if status == 404:
            return ModelUnavailable(
                f"{said}. Look at the model's name ({self.options.model!r}), and at the address: most servers want /v1 "
                "at its end."
            )
        if "image input is not supported" in text.lower() or "mmproj" in text.lower():
            return ModelUnavailable(f"{said}. The model takes no pictures: choose one that does.")
        if status in _RETRIED and not (status == 500 and is_about_format(text)):
            return _Failed(said, retry_after=retry_after(headers), away=status in (502, 503))
        if wants_max_completion_tokens(text) and not self.ladder.max_completion_tokens:
            self.ladder.max_completion_tokens = True
            return _Failed(said, retry_after=0.0)
        return self._refusal(said, text, status)

    def _refusal(self, said: str, text: str, status: int) -> AdapterError:
        """The server will not do it: because of this picture, or of the settings, when it says so every time."""
        if is_about_format(text) or status in (400, 422, 500, 501):
            return FormatRefused(said, permanent=True)
        return self.refused_for_good(AdapterError(said, permanent=True))

    def refused_for_good(self, error: AdapterError) -> AdapterError:
        """The error itself; ModelUnavailable when every request so far has met it."""
        text = re.sub(r"\d+", "#", error.message)
        with self._lock:
            before, times = self._refusals
            self._refusals = (text, times + 1 if text == before else 1)
            hopeless = self._refusals[1] >= HOPELESS and not self._successes
        if hopeless:
            return ModelUnavailable(f"Every request was refused the same way. {error.message}")
        return AdapterError(error.message, permanent=True)

    def _redacted(self, text: str) -> str:
        return text.replace(self.key, "…") if len(self.key) > 3 else text

    # -- what it has ------------------------------------------------------------------------------------------------
    def models(self, timeout: float) -> list[dict[str, Any]]:
        """The server's own list: objects with at least an `id`. AdapterError."""
        import openai

        from .transport import DEADLINE

        DEADLINE.at = time.monotonic() + timeout
        try:
            raw = self._openai.with_options(timeout=timeout).with_raw_response.models.list(extra_headers=self._headers)
            value: Any = raw.http_response.json()
        except openai.APIStatusError as error:
            found = self._explained(error)
            raise found if isinstance(found, AdapterError) else AdapterError(str(found)) from None
        except openai.APITimeoutError:
            raise AdapterError(f"{self.host} did not answer within {timeout:g} s.") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            refused = isinstance(cause, AddressRefused)
            raise AdapterError(
                str(cause) if refused else f"{self.address} cannot be reached: {_words(cause)}. Is the server running?"
            ) from None
        except AddressRefused as error:
            raise AdapterError(str(error)) from None
        except ValueError:
            raise AdapterError(f"{self.address}/models is no list of models: is the address right?") from None
        finally:
            DEADLINE.at = None
        data = value.get("data", value.get("models")) if isinstance(value, dict) else value
        if not isinstance(data, list):
            raise AdapterError(f"{self.address}/models is no list of models: is the address right?")
        return [m for m in data if isinstance(m, dict) and isinstance(m.get("id"), str)]


class _Refused(Exception):
    """Too many requests."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _Failed(Exception):
    """The server or the line failed; the same request may succeed. `unreachable`: nobody was there at all; `away`: it
    may be there again soon."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, unreachable: bool = False, away: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after, self.unreachable, self.away = retry_after, unreachable, away


def api_key(variable: str) -> str:
    """The key in that environment variable; empty where none is named. ModelUnavailable when it is not set."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ModelUnavailable(f"The environment variable {variable} is not set: set it for the workers to the key.")
    if not key.isascii() or not key.isprintable():
        raise ModelUnavailable(f"The key in {variable} has characters that no header can carry.")
    return key


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait; None when it does not say."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None:
            try:
                return max(0.0, float(value) * scale)
            except ValueError:
                parsed = email.utils.parsedate_tz(value)
                if parsed is not None:
                    return max(0.0, email.utils.mktime_tz(parsed) - time.time())
    return None


def _remaining(headers: Any) -> float | None:
    """The smallest share that is left of the server's quotas of requests and tokens."""
    shares = []
    for what in ("requests", "tokens"):
        try:
            most = float(headers.get(f"x-ratelimit-limit-{what}", ""))
            left = float(headers.get(f"x-ratelimit-remaining-{what}", ""))
        except ValueError:
            continue
        if most > 0:
            shares.append(left / most)
    return min(shares, default=None)


def _redirected(location: str, address: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{address} redirects to {location[:200] or 'nowhere'}. Redirects are not followed: enter the address that is "
        "meant."
    )


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_down(error: BaseException) -> bool:
    import httpx2

    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)


def _tokens(body: dict[str, Any]) -> int:
    """About how many tokens a request takes, before the server says it: letters by four, a picture as a thousand."""
    total = cast(int, body.get("max_tokens", 0)) // 4
    for message in body["messages"]:
        content = message["content"]
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            total += 1000 if part["type"] == "image_url" else len(part["text"]) // 4
    return total
