"""The desk's form: an inquiry from a browser, checked as every form of our pages is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from auditor_server.api.dependencies import AuditorServer, form_up_to
from auditor_server.errors import ServerError
from auditor_server.inquiry_forms import MOST_FIELDS, InquiryForm, most_bytes, most_files
from auditor_server.web.dependencies import FORM_TOKEN, SignedInExaminer, check_origin
from auditor_server.web.sign_ins import check_form, current

EXAMPLE = "example"
RATES = (0.1, 0.05, 0.01, 0.001, 0.0001, 0.000001)
DISCOVERY_RATES = (0.01, 0.05, 0.1, 0.2)

_opened = asynccontextmanager(form_up_to(most_bytes, most_files, most_fields=MOST_FIELDS))


async def _desk_form(
    request: Request,
    principal: SignedInExaminer,  # before the body is read
    auditor: AuditorServer,
) -> AsyncIterator[InquiryForm]:
    del principal
    check_origin(request)
    async with AsyncExitStack() as stack:
        try:
            form = InquiryForm(await stack.enter_async_context(_opened(request, auditor)))
        except ServerError as error:
            form = InquiryForm(FormData(), error)
        else:
            await run_in_threadpool(current, request)
            check_form(request, form.text(FORM_TOKEN))
        yield form


SentForm = Annotated[InquiryForm, Depends(_desk_form)]
