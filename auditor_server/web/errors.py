"""What can go wrong with a page and with no call of the API."""

from http import HTTPStatus
from typing import ClassVar


class PageError(Exception):
    """Base of the pages' own errors; the message is shown."""

    status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY


class SignInNeededError(PageError):
    """Nobody is signed in."""

    status = HTTPStatus.UNAUTHORIZED


class ForgedFormError(PageError):
    """The form was not sent from one of our own pages, or it is from before the last sign-in."""

    status = HTTPStatus.FORBIDDEN


class PageNotFoundError(PageError):
    """There is no such page."""

    status = HTTPStatus.NOT_FOUND
