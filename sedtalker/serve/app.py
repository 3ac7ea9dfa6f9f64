"""The HTTP side: the page, takes, posted files, health and metrics, and the WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from sedtalker.errors import FaceError, SEDTalkerError
from sedtalker.serve import jbin, posts
from sedtalker.serve.config import ServeConfig
from sedtalker.serve.page import Page
from sedtalker.serve.security import COOKIE, allows, known_host, same_origin
from sedtalker.serve.sessions import SessionManager
from sedtalker.serve.studio import NAME, SAVED, Busy, StudioClient
from sedtalker.serve.websocket import CLOSE_POLICY, serve_websocket

UPLOAD_SECONDS = 60.0  # for the body of a request
_OPEN_PATHS = ("/healthz", "/v1/health/ready", "/v1/health/live")  # without a token: they tell nothing
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src blob:; connect-src 'self' blob: ws: wss:; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app(config: ServeConfig, manager: SessionManager, studio: StudioClient) -> ASGIApp:
    """The application."""
    page = Page(config)
    handlers = _Handlers(config, manager, studio, page)
    app = Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/page/{name}", handlers.part),
            Route("/face/{number}.glb", handlers.face),
            Route("/healthz", handlers.health),
            Route("/v1/health/ready", handlers.health),
            Route("/v1/health/live", handlers.health),
            Route("/metrics", handlers.metrics),
            Route("/takes", handlers.add_take, methods=["POST"]),
            Route("/takes/{name}", handlers.edit_take, methods=["POST"]),
            Route(f"/takes/{{name}}/{NAME}.{{form}}", handlers.save_take),
            Route("/audio_to_blendshapes", handlers.post(posts.neurosync), methods=["POST"]),
            Route("/azure/visemes", handlers.post(posts.azure), methods=["POST"]),
            Route("/a2f.json", handlers.post(posts.a2f_json), methods=["POST"]),
            WebSocketRoute("/ws", handlers.websocket(serve_websocket)),
            WebSocketRoute("/ws/lam_data_stream/{name}", handlers.websocket(jbin.serve_jbin)),
        ],
        exception_handlers={SEDTalkerError: _respond_with_error, Exception: _respond_without_detail},
    )
    return _Guard(app, config, manager)


class _Guard:
    """Checks the host name, the origin and the token of every request, and adds the headers of the answers."""

    def __init__(self, app: ASGIApp, config: ServeConfig, manager: SessionManager) -> None:
        self._app, self._config, self._manager = app, config, manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request: Any = WebSocket(scope, receive, send) if scope["type"] == "websocket" else Request(scope, receive)
        problem = self._find_problem(request)
        if problem is None:
            await self._app(scope, receive, partial(_send_with_headers, send))
            return
        status, reason, message = problem
        self._manager.metrics.rejected[reason] += 1
        if isinstance(request, WebSocket):
            await request.close(CLOSE_POLICY, message)  # before it is accepted: an answer of 403
        else:
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await PlainTextResponse(message + "\n", status, headers)(scope, receive, partial(_send_with_headers, send))

    def _find_problem(self, request: Any) -> tuple[int, str, str] | None:
        config, headers = self._config, request.headers
        if not known_host(config, headers):
            return 421, "host", "this server is not known by that name"
        if not same_origin(config, headers):
            return 403, "origin", "pages of other sites cannot use this server (--origin allows one)"
        if request.url.path not in _OPEN_PATHS and not allows(config, headers, request.query_params, request.cookies):
            return 401, "token", "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN"
        return None


async def _send_with_headers(send: Send, message: Any) -> None:
    if message["type"] == "http.response.start":
        present = {name.lower() for name, _ in message["headers"]}
        added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        message["headers"] = [*message["headers"], *(pair for pair in added if pair[0].lower() not in present)]
    await send(message)


async def _respond_with_error(_: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, Busy) else 404 if isinstance(error, FaceError) else 400
    return JSONResponse({"error": str(error)}, status)


async def _respond_without_detail(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error"}, 500)


class _TooLarge(SEDTalkerError):
    """A body over the limit."""


class _Handlers:
    def __init__(self, config: ServeConfig, manager: SessionManager, studio: StudioClient, page: Page) -> None:
        self._config, self._manager, self._studio, self._page = config, manager, studio, page
        self._receiving = 0  # bytes of bodies that are not complete

    def websocket(
        self, serve: Callable[[WebSocket, SessionManager], Awaitable[None]]
    ) -> Callable[[WebSocket], Awaitable[None]]:
        async def handle(socket: WebSocket) -> None:
            await socket.accept()
            await serve(socket, self._manager)

        return handle

    def post(self, answer: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            data = await self._body(request, self._config.limits.upload_bytes)
            motion = await self._studio.call("weights", data, posts.FPS)
            return JSONResponse(answer(motion))

        return handle

    async def page(self, request: Request) -> Response:
        """The page; a token in the address becomes a cookie, so that it does not stay in the history."""
        token = request.query_params.get("token")
        if token is not None and self._config.token is not None:
            response = RedirectResponse(request.url.remove_query_params("token").path, 303)
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
            return response
        if self._manager.description is None:
            return PlainTextResponse("the server is starting\n", 503)
        face, description = request.query_params.get("face"), self._manager.description
        html = await asyncio.to_thread(self._page.html, face, description)  # a face that is read takes a while
        return Response(html, media_type="text/html")

    async def part(self, request: Request) -> Response:
        found = self._page.part(request.path_params["name"])
        return Response("not found", 404) if found is None else Response(found[0], media_type=found[1])

    async def face(self, request: Request) -> Response:
        data = await asyncio.to_thread(self._page.glb, request.path_params["number"])
        return Response(data, media_type="model/gltf-binary")

    async def health(self, request: Request) -> Response:
        ready = self._manager.ready
        return JSONResponse({"status": "ok" if ready else "unavailable"}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._manager.metrics.text(), media_type="text/plain; version=0.0.4")

    async def add_take(self, request: Request) -> Response:
        data = await self._body(request, self._config.limits.upload_bytes)
        face = self._page.face(request.query_params.get("face"))
        return JSONResponse(await self._studio.call("add", data, float(self._config.fps), face))

    async def edit_take(self, request: Request) -> Response:
        try:
            edit = json.loads(await self._body(request, 1 << 20))
            segments, share, number = edit["segments"], float(edit.get("share", 1)), edit.get("face")
            if not 0 <= share <= 1 or not isinstance(segments, list):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return JSONResponse({"error": "send {segments: [...], share: 0..1}"}, 400)
        face = None if number is None else self._page.face(str(number))
        return await self._take(self._studio.call("edit", request.path_params["name"], segments, share, face))

    async def save_take(self, request: Request) -> Response:
        form = request.path_params["form"]
        if form not in SAVED:
            return JSONResponse({"error": f"formats: {', '.join(SAVED)}"}, 404)
        headers = {"Content-Disposition": f'attachment; filename="{NAME}.{form}"'}
        if form == "html":
            headers["Content-Security-Policy"] = "sandbox"
        return await self._take(self._studio.call("save", request.path_params["name"], form), SAVED[form], headers)

    async def _take(
        self, call: Awaitable[Any], media: str | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        """The answer with the result of a call of the studio, as JSON or as a file of a media type."""
        try:
            result = await call
        except KeyError:
            return JSONResponse({"error": "no such take. It was made by another server, or is too old"}, 404)
        return JSONResponse(result) if media is None else Response(result, headers=headers, media_type=media)

    async def _body(self, request: Request, limit: int) -> bytes:
        """The body of a request.

        Raises:
            Busy: too many bodies are being received.
            SEDTalkerError: it is too large, too slow, or incomplete.
        """
        pieces: list[bytes] = []
        size = 0

        async def read() -> None:
            nonlocal size
            async for piece in request.stream():
                size += len(piece)
                self._receiving += len(piece)
                if size > limit:
                    raise _TooLarge(f"more than {limit >> 20} MB. Send less")
                if self._receiving > self._config.limits.jobs * self._config.limits.upload_bytes:
                    raise Busy("too many files are being posted. Try again later")
                pieces.append(piece)

        try:
            if int(request.headers.get("content-length", "0")) > limit:
                raise _TooLarge(f"more than {limit >> 20} MB. Send less")
            await asyncio.wait_for(read(), UPLOAD_SECONDS)
        except ValueError:
            raise SEDTalkerError("a content-length that is not a number") from None
        except ClientDisconnect:
            raise SEDTalkerError("the request is incomplete") from None
        except asyncio.TimeoutError:
            raise SEDTalkerError(f"the request took more than {UPLOAD_SECONDS:g} s") from None
        finally:
            self._receiving -= size
        return b"".join(pieces)
