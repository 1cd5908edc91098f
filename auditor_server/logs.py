"""The server's log on standard error: lines to read, or JSON lines to collect.

One line for each request. It names the route by its template and the caller by the name of the
token, so neither a token nor a picture nor what was asked is ever in it.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from auditor_server.settings import LogFormat

REQUESTS: Final = "auditor_server.requests"
FIELDS: Final = "fields"
"""Attribute of a log record: what a line says beside its message, by name."""


def configure(log_format: LogFormat) -> None:
    """Send everything that this process logs to standard error, requests included."""
    handler = _ToStandardError()
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    root = logging.getLogger()
    for earlier in [found for found in root.handlers if isinstance(found, _ToStandardError)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(REQUESTS).setLevel(logging.INFO)


class _ToStandardError(logging.Handler):
    """Writes to whatever is standard error then, in one piece: several processes share it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - as every handler: what can't be logged breaks nothing
            self.handleError(record)


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class TextLines(logging.Formatter):
    """Time, level, message, and the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it."""
        fields = getattr(record, FIELDS, {})
        words = [_time(record), record.levelname.lower(), record.getMessage()]
        words += [f"{name}={value}" for name, value in fields.items() if value is not None]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
