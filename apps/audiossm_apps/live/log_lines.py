"""Log records as lines of JSON, whoever writes them."""

import json
import logging
import sys

__all__ = ["log_to_stderr"]


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.name == "audiossm.service":
            return text  # that is JSON already
        fields = {"event": "log", "level": record.levelname.lower(), "from": record.name}
        fields["message"] = text
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log_to_stderr() -> None:
    """Send what the service, the server under it and the event loop log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    # uvicorn takes a refusal by HTTP for an unfinished handshake, and says so at every one
    handler.addFilter(lambda record: "without completing handshake" not in record.getMessage())
    for name in ("audiossm", "uvicorn", "asyncio"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO if name == "audiossm" else logging.WARNING)
