"""The web application: routes, errors, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from auditor_server import problems
from auditor_server.api import (
    codes,
    continuations,
    orders,
    public,
    queries,
    records,
    reports,
    sessions,
    submissions,
)
from auditor_server.context import Auditor
from auditor_server.loaded_models import ModelCache
from auditor_server.settings import ServerSettings

API_PREFIX = "/v1"


def create_app(settings: ServerSettings) -> FastAPI:
    """Return the application that serves one auditor's home.

    Raises:
        HomeError: there is no home, or it lacks a key that the server signs with.

    """
    auditor = Auditor.open(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        auditor.store.close()

    # FastAPI's own pages load their scripts from another site; /openapi.json stays.
    app = FastAPI(title="auditkit", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.auditor = auditor
    app.state.models = ModelCache(auditor.blobs, settings.models_in_memory)
    problems.install(app)
    for module in (
        public,
        orders,
        sessions,
        continuations,
        codes,
        records,
        submissions,
        queries,
        reports,
    ):
        app.include_router(module.router, prefix=API_PREFIX)
    return app
