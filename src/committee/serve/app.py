"""The FastAPI application: paths -> what answers them.

`Served` answers, `Batcher` joins what many clients ask at once, `Guard` stands before and after all of it. What answers
is loaded while the server listens already: until then, and once it is to end, `/readyz` and predictions say 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from committee.serve import guard, metrics
from committee.serve.batching import Batcher
from committee.serve.corrections import Corrections
from committee.serve.images import QUICK_BODY
from committee.serve.limits import ServeLimits
from committee.serve.messages import (
    CorrectionRequest,
    CorrectionResponse,
    Health,
    PredictRequest,
    PredictResponse,
    Problem,
)
from committee.serve.page_files import PageFile
from committee.serve.problems import RefusedError, busy, too_large, unusable
from committee.serve.questions import Question, ReadQuestion, faults, parse, read
from committee.serve.served import Served
from committee.version import version
from committee.web.model_info import ModelInfo

T = TypeVar("T")

JSON = "application/json"

MEANINGS = {
    400: "No HTTP, or a body that ended early.",
    401: "The token is missing or wrong.",
    403: "A request of another server's page.",
    404: "There is none here.",
    413: "More bytes, pixels or images than are taken.",
    415: "Neither a form nor JSON.",
    421: "The Host header is another server's.",
    422: "It cannot be understood, or an image cannot be read.",
    503: "Too much to do, loading or ending; Retry-After says when to come again.",
}


@dataclass
class State:
    """What a running server knows.

    Attributes:
        limits: its bounds.
        served: what answers; None while it is loading.
        batcher: what joins requests; None while it is loading.
        corrections: where they are stored; None where they are not.
        ending: whether it is to end.
        buffered: bytes of all bodies that are being received or wait.
        metrics: what it counts.
        pool: threads for large bodies and images.
    """

    limits: ServeLimits
    served: Served | None = None
    batcher: Batcher[Question | ReadQuestion, bytes] | None = None
    corrections: Corrections | None = None
    ending: bool = False
    buffered: int = 0
    metrics: metrics.Metrics = field(default_factory=metrics.Metrics)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "committee-reads"))

    @property
    def status(self) -> str:
        """Whether it is ready."""
        return "ending" if self.ending else "ok" if self.served else "loading"

    def ready(self) -> tuple[Served, Batcher[Question | ReadQuestion, bytes]]:
        """What answers.

        Raises:
            RefusedError: it is still loading.
        """
        if self.served is None or self.batcher is None:
            raise busy("the committee is loading")
        return self.served, self.batcher

    def start(self, served: Served, corrections: Corrections | None) -> None:
        """What answers is loaded: from now on predictions are given."""
        limits = self.limits
        self.batcher = Batcher(
            served.work,
            most=limits.batch,
            queue=limits.queue,
            wait=limits.wait,
            observe=self.metrics.batches.observe,
        )
        batcher = self.batcher
        self.metrics.gauges["queue_images"] = ("Images that wait.", lambda: batcher.waiting)
        self.corrections, self.served = corrections, served


def make_app(
    state: State, access: guard.Access, pages: dict[str, PageFile], log: Callable[[str], None] | None = None
) -> guard.Guard:
    """The application with its guard.

    Args:
        state: of the server.
        access: who may ask.
        pages: the page's files by their paths.
        log: is told a line for each request.
    """
    app = FastAPI(title="committee", version=version, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    state.metrics.gauges["buffered_bytes"] = ("Bytes of bodies in memory.", lambda: state.buffered)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(HTTPStatus.NOT_FOUND)
    async def not_found(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "there is nothing at this path; see /openapi.json"}, HTTPStatus.NOT_FOUND)

    @app.exception_handler(HTTPStatus.METHOD_NOT_ALLOWED)
    async def not_allowed(request: Request, error: Any) -> Response:
        return JSONResponse(
            {"error": "this path does not take this method; see /openapi.json"}, error.status_code, error.headers
        )

    @app.post(
        "/v1/predict",
        response_model=PredictResponse,
        responses=_problems(400, 401, 403, 413, 415, 421, 422, 503),
        openapi_extra=_predict_body(state.limits),
    )
    async def predict(request: Request) -> Response:
        """Classify images: files of a form, or arrays and base64 in JSON."""
        return Response(await answered(request), media_type=JSON)

    async def answered(request: Request) -> bytes:
        served, batcher = state.ready()
        kind = request.headers.get("content-type", "")

        async def answer(body: bytes) -> bytes:
            question: Question | ReadQuestion
            if len(body) <= QUICK_BODY:
                question = parse(body, kind, served.classifier, state.limits)
            else:
                question = await _in_thread(state, lambda: parse(body, kind, served.classifier, state.limits))
            size = len(question.images)
            if not question.is_quick:
                slow = question
                question = await _in_thread(state, lambda: read(slow, served.classifier, state.limits))
            return await batcher.submit(question, size, state.limits.seconds)

        return await _with_body(state, request, answer)

    @app.post(
        "/v1/corrections",
        status_code=HTTPStatus.CREATED,
        response_model=CorrectionResponse,
        responses=_problems(400, 401, 403, 404, 413, 415, 421, 422, 503),
        openapi_extra=_body({JSON: CorrectionRequest.model_json_schema()}),
    )
    async def correct(request: Request) -> Response:
        """Store what an image really is, for later training."""
        state.ready()
        corrections = state.corrections
        if corrections is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "this server stores no corrections; start it with --corrections FOLDER"
            )
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{JSON} is expected, got another type; see /openapi.json"
            )

        async def store(body: bytes) -> Response:
            try:
                asked = CorrectionRequest.model_validate_json(body)
            except ValidationError as error:
                raise unusable(f"the body is not what /openapi.json describes: {faults(error)}") from None
            stored = await _in_thread(state, lambda: corrections.store(asked))
            return Response(stored.model_dump_json(), HTTPStatus.CREATED, media_type=JSON)

        return await _with_body(state, request, store)

    @app.get("/v1/model", response_model=ModelInfo, responses=_problems(401, 421, 503))
    async def model() -> Response:
        """The committee that is served."""
        return Response(state.ready()[0].info.model_dump_json(), media_type=JSON)

    @app.get("/v1/run", responses=_problems(401, 404, 421, 503))
    async def run() -> Response:
        """What the page shows of the run: confusion matrix, worst errors, samples, members."""
        made = state.ready()[0].run
        if made is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no run is served here that could be shown; serve a run's folder")
        return Response(await _in_thread(state, made), media_type=JSON)

    @app.get("/healthz", response_model=Health, responses=_problems(421))
    async def healthz() -> Response:
        """Whether the server lives."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", response_model=Health, responses={503: {"model": Health}, **_problems(421)})
    async def readyz() -> Response:
        """Whether the server answers questions now."""
        status = state.status
        return JSONResponse({"status": status}, HTTPStatus.OK if status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_problems(401, 421)})
    async def exposition() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(state.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    @app.get("/", include_in_schema=False)
    @app.get("/page/{name}", include_in_schema=False)
    async def page(request: Request) -> Response:
        """A file of the page."""
        found = pages.get(request.url.path)
        if found is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "there is no such page here; the API is described at /openapi.json"
            )
        headers = {"etag": found.etag, "cache-control": "no-cache", "content-type": found.kind}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(found.content, headers=headers)

    paths = {"/", *pages, *(route.path for route in app.routes if hasattr(route, "path"))}

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        """The application; FastAPI's way to a function takes longer than all else that a prediction needs here."""
        if scope["type"] != "http" or scope["path"] != "/v1/predict" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        content = await answered(Request(scope, receive))
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return guard.Guard(routed, access, state.metrics, paths, state.limits.body, log)


async def _with_body(state: State, request: Request, use: Callable[[bytes], Awaitable[T]]) -> T:
    """What a request's body leads to; the body is held to the limits while it comes, and so are all together.

    Raises:
        RefusedError: the body is too large (413), all of them together are (503), or it ended early (400).
    """
    chunks, size, limits = list[bytes](), 0, state.limits
    try:
        async for chunk in request.stream():
            if size + len(chunk) > limits.body:
                raise too_large(f"a body of at most {limits.body:,} bytes is taken; send less at once")
            if state.buffered + len(chunk) > limits.memory:
                raise busy("other requests fill the memory that there is for bodies")
            chunks.append(chunk)
            size += len(chunk)
            state.buffered += len(chunk)
        body = b"".join(chunks)
        chunks.clear()
        return await use(body)
    except ClientDisconnect:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body ended early; send all of it") from None
    finally:
        state.buffered -= size


async def _in_thread(state: State, function: Callable[[], T]) -> T:
    """What a function returns that takes longer than the event loop may stand still.

    Raises:
        RefusedError: it takes longer than a request may.
    """
    try:
        async with asyncio.timeout(state.limits.seconds):
            return await asyncio.get_running_loop().run_in_executor(state.pool, function)
    except TimeoutError:
        raise busy(f"the request was not read within {state.limits.seconds:g} seconds") from None


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": MEANINGS[code]} for code in codes}


def _predict_body(limits: ServeLimits) -> dict[str, Any]:
    """What the OpenAPI document says of the body of a prediction's request."""
    most = {"minItems": 1, "maxItems": limits.images}
    as_json, of_form = PredictRequest.model_json_schema(), PredictRequest.model_json_schema()["properties"]
    as_json["properties"]["images"] |= most
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, **most}
    form = {
        "type": "object",
        "required": ["files"],
        "additionalProperties": False,
        "properties": {"files": files, "prepare": of_form["prepare"], "details": of_form["details"]},
    }
    return _body({JSON: as_json, "multipart/form-data": form})


def _body(schemas: dict[str, Any]) -> dict[str, Any]:
    """What the document says of a body that its function reads itself: its schema by media type."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in schemas.items()}}}
