"""The web application: routes, errors, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from auditor_server import inquiries, problems
from auditor_server.access import accounts, trail
from auditor_server.access.rate_limits import Rate, RateLimiter
from auditor_server.access.sign_in import FAILURES_COUNT_FOR
from auditor_server.api import description
from auditor_server.api.dependencies import known_parameters
from auditor_server.api.routes import API_PREFIX, ROUTERS
from auditor_server.contained_models import ContainedModels
from auditor_server.context import Auditor
from auditor_server.loaded_models import ModelCache
from auditor_server.mint_custody import MintCustody
from auditor_server.observing import Observed
from auditor_server.readiness import Readiness
from auditor_server.registry import recover
from auditor_server.settings import ServerSettings
from auditor_server.stopping import Stopping
from auditor_server.trust_roots import register_trust_roots
from auditor_server.web import pages
from auditor_server.witnesses import Witnesses


def create_app(settings: ServerSettings) -> FastAPI:
    """Return the application that serves one auditor's home.

    Raises:
        HomeError: there is no home, or it lacks a key that the server signs with, or its registry
            is damaged, or its list of witnesses can't be used.

    """
    auditor = Auditor.open(settings)
    _recover(auditor)
    return _app(auditor)


def prepare(settings: ServerSettings) -> None:
    """Do once what several workers would each do at their start, before any of them starts.

    Raises:
        HomeError: see `create_app`.

    """
    auditor = Auditor.open(settings)
    _recover(auditor)
    Witnesses.of(auditor)
    auditor.store.close()


def create_worker_app(settings: ServerSettings) -> FastAPI:
    """Return the application for one of several workers, after `prepare`.

    What one worker must know of the others lies in the database or in the home. What it keeps in
    memory is a copy, and it checks whether that still holds before it uses it.

    Raises:
        HomeError: see `create_app`.

    """
    return _app(Auditor.open(settings))


def _recover(auditor: Auditor) -> None:
    recover(auditor)
    register_trust_roots(auditor)
    trail.prune(auditor)
    inquiries.prune(auditor)
    accounts.prune(auditor.store, auditor.now(), FAILURES_COUNT_FOR)


def _app(auditor: Auditor) -> FastAPI:
    settings, witnesses, stopping = auditor.settings, Witnesses.of(auditor), Stopping()
    contained = ContainedModels(auditor.home.path, settings, auditor.blobs)
    models = ModelCache(auditor.blobs, auditor.inference, contained)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        stopping.watch()
        witnesses.start()
        yield
        witnesses.stop()
        models.stop()
        auditor.inference.stop()
        auditor.store.close()

    # FastAPI's own pages load their scripts from another site, and its description knows less.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.auditor = auditor
    app.state.witnesses = witnesses
    app.state.stopping = stopping
    app.state.readiness = Readiness(auditor)
    app.state.models = models
    app.state.custody = MintCustody(auditor, settings.held_mints_in_memory)
    app.state.call_rates = RateLimiter(Rate(settings.calls_burst, settings.calls_per_second))
    app.state.query_rates = RateLimiter(Rate(settings.queries_burst, settings.queries_per_second))
    problems.install(app)
    for router in (*ROUTERS, description.router):
        app.include_router(router, prefix=API_PREFIX, dependencies=[Depends(known_parameters)])
    pages.install(app, auditor)
    app.add_middleware(Observed, metrics=auditor.metrics)
    return app
