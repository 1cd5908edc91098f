"""The log's end of c2sp.org/tlog-witness: asking one witness for its cosignature."""

from hashlib import sha256
from http import HTTPStatus

import requests

from auditkit.evidence import notes
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.witnessing import (
    MAX_ANSWER_BYTES,
    SIZE_MEDIA_TYPE,
    AddCheckpoint,
    Cosignature,
    StaleOldSizeError,
    read_cosignature,
    read_size,
)

# Witnesses answer in milliseconds; one that does not is asked again later.
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0


class WitnessingError(Exception):
    """Base of what keeps a log from getting a cosignature."""


class WitnessUnavailableError(WitnessingError):
    """The witness does not answer, or has trouble of its own; it may answer later."""


class WitnessRefusedError(WitnessingError):
    """The witness refuses this checkpoint, or answers what is no cosignature of it."""


class WitnessClient:
    """One witness, known by the URL that it takes checkpoints at and by its key."""

    def __init__(self, url: str, key: notes.VerifierKey) -> None:
        self.key = key
        self._prefix = url.rstrip("/")
        self._session = requests.Session()

    def add_checkpoint(self, request: AddCheckpoint) -> Cosignature:
        """Return the witness's cosignature of a checkpoint, verified.

        Raises:
            WitnessUnavailableError: no answer, or a status from 500 on, or 429.
            StaleOldSizeError: the witness stands at another size.
            WitnessRefusedError: any other refusal, or an answer that is not what it should be.

        """
        status, media_type, body = self._post(request.to_bytes())
        reason = f"{self.key.name} answered {status}: {body[:200]!r}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise WitnessUnavailableError(reason)
        try:
            stands_at = (
                read_size(body)
                if status == HTTPStatus.CONFLICT and media_type == SIZE_MEDIA_TYPE
                else None
            )
            if status == HTTPStatus.OK:
                return read_cosignature(body, request.note, self.key)
        except EvidenceError as error:
            raise WitnessRefusedError(f"{reason}: {error}") from error
        if stands_at is not None:
            raise StaleOldSizeError(stands_at)
        raise WitnessRefusedError(reason)

    def latest(self, origin: str) -> notes.Checkpoint | None:
        """Return the newest checkpoint of a log that the witness has cosigned; None: it has none.

        Raises:
            WitnessUnavailableError: no answer.
            WitnessRefusedError: an answer that is not what it should be.

        """
        digest = sha256(origin.encode()).hexdigest()
        url = f"{self._prefix}/{digest}/checkpoint"
        try:
            answer = self._session.get(url, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except requests.RequestException as error:
            raise WitnessUnavailableError(f"{self.key.name} does not answer: {error}") from error
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if answer.status_code != HTTPStatus.OK:
            raise WitnessUnavailableError(f"{self.key.name} answered {answer.status_code}")
        try:
            text = notes.verify(answer.content, [self.key]).text
            checkpoint = notes.parse_checkpoint(text)
        except EvidenceError as error:
            raise WitnessRefusedError(f"{self.key.name}: {error}") from error
        if checkpoint.origin != origin:
            raise WitnessRefusedError(
                f"{self.key.name}: expected a checkpoint of {origin}, found one of "
                f"{checkpoint.origin[:200]!r}"
            )
        return checkpoint

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _post(self, body: bytes) -> tuple[int, str | None, bytes]:
        """Return status, media type and body of the answer, the body cut where it is too large."""
        try:
            with self._session.post(
                f"{self._prefix}/add-checkpoint",
                data=body,
                headers={"Content-Type": "text/plain; charset=utf-8"},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                answer = bytearray()
                for chunk in response.iter_content(MAX_ANSWER_BYTES):
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        break  # such an answer is refused: its last line is cut
                media_type = response.headers.get("Content-Type")
                return response.status_code, media_type, bytes(answer[:MAX_ANSWER_BYTES])
        except requests.RequestException as error:
            raise WitnessUnavailableError(f"{self.key.name} does not answer: {error}") from error
