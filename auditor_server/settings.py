"""Where the server keeps its things, and how much it accepts from others."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auditkit.evidence.bundle import MAX_REQUEST_BYTES
from auditkit.evidence.log_checks import CLOCK_TOLERANCE_SECONDS

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8470
# Environments are not shown to other users of a machine; command lines are.
DATABASE_URL_VARIABLE = "AUDITKIT_DATABASE_URL"
# Names a file, as services in containers get their secrets.
DATABASE_PASSWORD_VARIABLE = "AUDITKIT_DATABASE_PASSWORD_FILE"  # noqa: S105 - no password
BLOBS_VARIABLE = "AUDITKIT_BLOBS"
MOST_WORKERS = 64

MEBIBYTE = 2**20

# The paper's largest model has 0.4 GB in float32; an evidence bundle holds 2 GB in all.
MOST_WEIGHTS_BYTES = 1536 * MEBIBYTE
# Scores are one number per sample: 16 million samples in float64.
MOST_SCORES_BYTES = 128 * MEBIBYTE
# A description is a page of JSON; a class name per line for the largest label sets.
MOST_DESCRIPTION_BYTES = 4 * MEBIBYTE
# A 24-megapixel photograph as PNG.
MOST_IMAGE_BYTES = 64 * MEBIBYTE
# A key, a number and a proof of at most 64 hashes.
MOST_OPENING_BYTES = MEBIBYTE // 16
# One call of the query endpoint; more images are sent in several calls.
MOST_IMAGES_PER_QUERY = 256
MOST_QUERY_BYTES = 256 * MEBIBYTE
# An agent flushes once a second: far above 1,000 steps a second, and still one database row.
MOST_RECORDS_PER_FLUSH = 10_000
MOST_FLUSH_BYTES = 16 * MEBIBYTE
# 32 bytes per sample in base64: 6 million samples.
MOST_SESSION_BYTES = 256 * MEBIBYTE
MOST_ORDER_BYTES = 1 * MEBIBYTE
# What an evidence bundle takes: an image's configuration and manifest, and a page beside them.
MOST_CONTINUATION_BYTES = MAX_REQUEST_BYTES
# A key and a signature; the envelope around them is a few hundred bytes.
MOST_CODES_REQUEST_BYTES = MEBIBYTE // 16
# Activations of one step in half precision: 128 million numbers.
MOST_EXCHANGE_BYTES = 256 * MEBIBYTE
# A result tells of at most 4,000 segments, with less than 500 bytes for each.
MOST_REPLAY_BYTES = 2 * MEBIBYTE
# Clocks of two machines under NTP differ by far less. It is a little less than the verifier
# tolerates, so that no log is taken for hours that is then condemned for its clock.
MOST_CLOCK_SKEW_SECONDS = CLOCK_TOLERANCE_SECONDS - 10
# Models kept loaded for queries, in each process that runs them.
MODELS_IN_MEMORY = 2
# Memory of one process that runs models: what is read, what is copied, and the models kept. The
# largest model that may be submitted takes its size three times while it is loaded.
MOST_MODEL_MEMORY_MIB = 8192
MOST_MODEL_MEMORY_BYTES = MOST_MODEL_MEMORY_MIB * MEBIBYTE
# One call with as many images as are allowed, about a large model, on one core.
MOST_MODEL_SECONDS = 600.0
MODEL_WORKERS = 1
# Decoding the largest image that may be opened takes its 32 million pixels a few times over.
MOST_DECODING_MEMORY_BYTES = 1024 * MEBIBYTE
# One call with as many images as are allowed.
MOST_DECODING_SECONDS = 120.0
DECODING_WORKERS = 1
# Calls that wait for such a process: each holds a thread of the server's.
MOST_WAITING = 8
MOST_WAITING_SECONDS = 60.0
# MINT Models of trainings under way; one that is not in memory is put back from what is kept.
HELD_MINTS_IN_MEMORY = 8
# Who asked about whom is kept as long as a complaint about it can be expected, and no longer.
TRAIL_DAYS = 365.0
MOST_TRAIL_DAYS = 36_500.0  # a century
# Of one token, in each worker. An agent flushes once a second; where the auditor holds T it sends
# some messages for each step, and short steps make many. Both stay far below.
CALLS_BURST = 2_000
CALLS_PER_SECOND = 200.0
# A call takes up to 256 images: a desk never notices, a flood of questions does.
QUERIES_BURST = 120
QUERIES_PER_SECOND = 2.0


@dataclass(frozen=True)
class Listening:
    """Where the server is reached.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        workers: processes that serve; with more than one, the first only looks after them.
        metrics_host: address of the metrics.
        metrics_port: port of the metrics; None: there are none.
    """

    host: str
    port: int
    workers: int = 1
    metrics_host: str = DEFAULT_HOST
    metrics_port: int | None = None


@dataclass(frozen=True)
class Bound:
    """Where the server is reached, once it is.

    Attributes:
        host: address that it listens on.
        port: its port.
        metrics_port: port of the metrics; None: there are none.
    """

    host: str
    port: int
    metrics_port: int | None


class LogFormat(StrEnum):
    """How the server's log is written."""

    TEXT = "text"
    JSON = "json"


class ServerSettings(BaseModel):
    """Settings of one server, be it one process or several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="the auditor's home folder, made by `create_home`")
    database_url: SecretStr | None = Field(
        default=None, description="None: SQLite in the home folder"
    )
    blobs_url: str | None = Field(
        default=None, description="s3://BUCKET/PREFIX; None: a folder in the home"
    )
    most_weights_bytes: int = Field(default=MOST_WEIGHTS_BYTES, gt=0)
    most_scores_bytes: int = Field(default=MOST_SCORES_BYTES, gt=0)
    most_description_bytes: int = Field(default=MOST_DESCRIPTION_BYTES, gt=0)
    most_image_bytes: int = Field(default=MOST_IMAGE_BYTES, gt=0)
    most_opening_bytes: int = Field(default=MOST_OPENING_BYTES, gt=0)
    most_images_per_query: int = Field(default=MOST_IMAGES_PER_QUERY, gt=0)
    most_query_bytes: int = Field(default=MOST_QUERY_BYTES, gt=0)
    most_records_per_flush: int = Field(default=MOST_RECORDS_PER_FLUSH, gt=0)
    most_flush_bytes: int = Field(default=MOST_FLUSH_BYTES, gt=0)
    most_session_bytes: int = Field(default=MOST_SESSION_BYTES, gt=0)
    most_order_bytes: int = Field(default=MOST_ORDER_BYTES, gt=0)
    most_continuation_bytes: int = Field(default=MOST_CONTINUATION_BYTES, gt=0)
    most_codes_request_bytes: int = Field(default=MOST_CODES_REQUEST_BYTES, gt=0)
    most_exchange_bytes: int = Field(default=MOST_EXCHANGE_BYTES, gt=0)
    most_replay_bytes: int = Field(default=MOST_REPLAY_BYTES, gt=0)
    most_clock_skew_seconds: float = Field(default=MOST_CLOCK_SKEW_SECONDS, ge=0)
    models_in_memory: int = Field(default=MODELS_IN_MEMORY, gt=0)
    most_model_memory_bytes: int = Field(default=MOST_MODEL_MEMORY_BYTES, gt=0)
    most_model_seconds: float = Field(default=MOST_MODEL_SECONDS, gt=0)
    model_workers: int = Field(default=MODEL_WORKERS, gt=0)
    most_decoding_memory_bytes: int = Field(default=MOST_DECODING_MEMORY_BYTES, gt=0)
    most_decoding_seconds: float = Field(default=MOST_DECODING_SECONDS, gt=0)
    decoding_workers: int = Field(default=DECODING_WORKERS, gt=0)
    most_waiting: int = Field(default=MOST_WAITING, ge=0)
    most_waiting_seconds: float = Field(default=MOST_WAITING_SECONDS, gt=0)
    held_mints_in_memory: int = Field(default=HELD_MINTS_IN_MEMORY, gt=0)
    log_format: LogFormat = LogFormat.TEXT
    trail_days: float = Field(default=TRAIL_DAYS, gt=0, le=MOST_TRAIL_DAYS)
    calls_burst: int = Field(default=CALLS_BURST, gt=0)
    calls_per_second: float = Field(default=CALLS_PER_SECOND, gt=0)
    queries_burst: int = Field(default=QUERIES_BURST, gt=0)
    queries_per_second: float = Field(default=QUERIES_PER_SECOND, gt=0)
