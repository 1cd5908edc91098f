"""A session while it trains: what has come so far, and then what comes."""

from collections.abc import AsyncIterator
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from auditkit.reports.figures import step_figures
from auditor_server import sessions
from auditor_server.context import Auditor
from auditor_server.live_logs import LiveLogs
from auditor_server.orders import find_order, read_order
from auditor_server.stopping import Stopping
from auditor_server.store import SessionRow
from auditor_server.store.engine import NO_ANSWER
from auditor_server.web.dependencies import AuditorServer, SignedInReader
from auditor_server.web.rendering import fragment, page
from auditor_server.web.sign_ins import look_up

router = APIRouter(include_in_schema=False)

SECONDS_BETWEEN_LOOKS = 1.0
# Proxies take a connection for dead when nothing comes for a minute.
LOOKS_BETWEEN_SIGNS_OF_LIFE = 15
# A browser connects again by itself, so that no stream holds the server up when it stops.
MOST_LOOKS = 300


@router.get("/sessions/{session_id}/live")
def live_page(
    request: Request, principal: SignedInReader, auditor: AuditorServer, session_id: str
) -> HTMLResponse:
    """Show how far a session has come."""
    session = auditor.session(session_id, principal)
    return page(
        request,
        "live",
        status=sessions.status(auditor, session),
        progress=_progress(request, auditor, session),
    )


@router.get("/sessions/{session_id}/events")
def events(
    request: Request, principal: SignedInReader, auditor: AuditorServer, session_id: str
) -> StreamingResponse:
    """Send the changing part of the live page whenever it has changed (server-sent events)."""
    session = auditor.session(session_id, principal)
    stream = _until_no_answer(_stream(request, auditor, session))
    return StreamingResponse(stream, media_type="text/event-stream")


async def _until_no_answer(stream: AsyncIterator[str]) -> AsyncIterator[str]:
    """Pass a stream on; it ends when the database is away, and the browser asks again later."""
    try:
        async for event in stream:
            yield event
    except NO_ANSWER:
        return


async def _stream(request: Request, auditor: Auditor, session: SessionRow) -> AsyncIterator[str]:
    shown: tuple[int, str] | None = None
    stopping = cast("Stopping", request.app.state.stopping)
    for look in range(MOST_LOOKS):
        if await request.is_disconnected() or not await run_in_threadpool(look_up, request):
            return
        session = await run_in_threadpool(_as_it_is, auditor, session)
        if (session.size, session.state) != shown:
            shown = (session.size, session.state)
            yield _event("progress", await run_in_threadpool(_progress, request, auditor, session))
        elif look % LOOKS_BETWEEN_SIGNS_OF_LIFE == 0:
            yield ": nothing new\n\n"
        if session.state != "open":
            yield _event("end", session.state)
            return
        if await stopping.within(SECONDS_BETWEEN_LOOKS):
            return  # the browser asks again, when the server is back


def _as_it_is(auditor: Auditor, session: SessionRow) -> SessionRow:
    return auditor.store.session(session.id) or session


def _event(name: str, content: str) -> str:
    lines = "".join(f"data: {line}\n" for line in content.splitlines())
    return f"event: {name}\n{lines}\n"


def _progress(request: Request, auditor: Auditor, session: SessionRow) -> str:
    order = read_order(find_order(auditor, session.order_id))
    logs = cast("LiveLogs", request.app.state.live_logs)
    log = logs.read(session, order.late_after_seconds)
    return fragment(
        "live_progress",
        status=sessions.status(auditor, session),
        log=log,
        late_after=order.late_after_seconds,
        figures=step_figures(log.trace, log.each),
    )
