"""What can go wrong with a page and with no call of the API."""

from http import HTTPStatus
from typing import ClassVar


class PageError(Exception):
    """Base of the pages' own errors; the message is shown."""

    status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY


class PageNotFoundError(PageError):
    """There is no such page."""

    status = HTTPStatus.NOT_FOUND
