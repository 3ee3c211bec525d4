"""The study as a small web service: Starlette for the requests, SQLite for the votes.

| request | answer |
|---|---|
| GET / | the page |
| POST /api/session | begins a session: its token, told once; with a token, another one of the same rater |
| GET /api/session | the trials of the token's session and which are answered |
| POST /api/vote | stores one choice; safe to repeat |
| DELETE /api/session | withdraws: deletes the rater's sessions and votes |
| GET /stimuli/NAME | a picture of the study, by the hash that is its name |

Tokens travel in the Authorization header, so that no other site can vote with a rater's cookies. Bodies are JSON of
at most 2 KiB.
"""

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.user_study import page
from diffusion_codec.user_study.design import STIMULI, Sessions, load
from diffusion_codec.user_study.store import FILE, ConflictError, Store, UnknownSessionError

MAX_BODY = 2048
LOCAL_HOSTS = ("127.0.0.1", "localhost")
_STATUS: tuple[tuple[type[BadInputError], int], ...] = (
    (UnknownSessionError, 401),
    (ConflictError, 409),
    (LimitExceededError, 503),
    (BadInputError, 422),
)


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _SafeHeaders:
    """The same careful headers on every answer, errors included."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, with_headers)


def application(folder: Path, hosts: Sequence[str] = LOCAL_HOSTS, max_sessions: int = 1000) -> Starlette:
    """The service for the study in a folder. Raises MissingDataError, BadInputError if there is none."""
    study = load(folder)
    store, sessions = Store(folder / FILE, study, max_sessions), Sessions(study)
    html, policy = page.served(study)
    pictures = {s.file: folder / STIMULI / s.file for s in study.stimuli}
    missing = [path for path in pictures.values() if not path.is_file()]
    if missing:
        raise BadInputError(f"{missing[0]} is missing: make the study again, `diffusion-codec study design`")

    def view(token: str) -> dict[str, Any]:
        found, choices = store.session(token)
        trials = [page.trial_view(trial, "stimuli/") for trial in sessions[found.number]]
        return {"rater": found.rater, "trials": trials, "answered": sorted(choices)}

    async def index(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"cache-control": "no-cache"})

    async def picture(request: Request) -> Response:
        path = pictures.get(request.path_params["name"])
        if path is None:
            raise _Refused(404, "no such picture")
        data = await run_in_threadpool(path.read_bytes)
        return Response(data, media_type="image/webp", headers={"cache-control": "max-age=86400, immutable"})

    async def begin(request: Request) -> Response:
        body = await _body(request)
        if body != {"consent": True}:
            raise _Refused(422, 'a session begins with {"consent": true}')
        earlier = _token(request) if "authorization" in request.headers else None
        token, found = await run_in_threadpool(store.begin, earlier)
        return JSONResponse({"token": token, "rater": found.rater}, 201)

    async def resume(request: Request) -> Response:
        return JSONResponse(
            await run_in_threadpool(view, _token(request)), headers={"cache-control": "no-store"}
        )

    async def vote(request: Request) -> Response:
        token, body = _token(request), await _body(request)
        new = await run_in_threadpool(store.vote, token, *_vote(body))
        return JSONResponse({"stored": True}, 201 if new else 200)

    async def withdraw(request: Request) -> Response:
        await run_in_threadpool(store.withdraw, _token(request))
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/session", _guarded(begin), methods=["POST"]),
            Route("/api/session", _guarded(resume), methods=["GET"]),
            Route("/api/session", _guarded(withdraw), methods=["DELETE"]),
            Route("/api/vote", _guarded(vote), methods=["POST"]),
            Route("/stimuli/{name}", _guarded(picture)),
        ],
        middleware=[
            Middleware(_SafeHeaders, policy=policy),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
    )


Endpoint = Callable[[Request], Awaitable[Response]]


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Refusals as JSON with a reason that a person can read."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Refused as error:
            return JSONResponse({"error": str(error)}, error.status)
        except BadInputError as error:
            status = next(code for kind, code in _STATUS if isinstance(error, kind))
            return JSONResponse({"error": str(error)}, status)

    return answer


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= 200:
        raise UnknownSessionError("the request has no session: begin one first")
    return token


async def _body(request: Request) -> Any:
    """A JSON body; what is too long, of another type or no JSON is refused before it is all read."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "expected application/json")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise _Refused(413, f"a request has at most {MAX_BODY} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, "the body is not JSON") from error


def _vote(body: Any) -> tuple[int, str, float]:
    if not isinstance(body, dict) or set(body) != {"trial", "choice", "seconds"}:
        raise _Refused(422, "a vote has trial, choice and seconds")
    trial, choice, seconds = body["trial"], body["choice"], body["seconds"]
    if type(trial) is not int or type(choice) is not str or type(seconds) not in (int, float):
        raise _Refused(422, "trial is a whole number, choice a word, seconds a number")
    if max(abs(trial), abs(seconds)) > 1e9:
        raise _Refused(422, "trial or seconds are out of range")
    return trial, choice, float(seconds)


def serve(
    folder: Path,
    host: str,
    port: int,
    hosts: Sequence[str] = (),
    max_sessions: int = 1000,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the study until interrupted; port 0 takes a free one. Raises BadInputError if the port is taken."""
    app = application(folder, (*LOCAL_HOSTS, *hosts), max_sessions)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with socket.socket() as listener:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise BadInputError(f"cannot listen on {host}:{port} ({error}); choose another --port") from error
        listener.listen(128)
        announce(f"http://{host}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=200,
            h11_max_incomplete_event_size=16 * 1024,
        )
        uvicorn.Server(config).run(sockets=[listener])
