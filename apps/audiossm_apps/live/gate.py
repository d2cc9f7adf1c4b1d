"""Who may come in, and how much each may send: keys, origins, caps."""

import hmac
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from audiossm.errors import ConfigError

__all__ = ["Caps", "Gate", "MessageRate", "read_keys"]


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What one connection may do."""

    max_message: int = 1_000_000  # bytes
    max_messages_s: float = 500.0  # messages a second, on average
    max_audio_s: float = 12 * 3600.0  # of one stream
    max_text: int = 1_000_000  # characters that /v1/speak says from a start to the next one
    max_input: int = 100_000  # characters of a POST to /v1/audio/speech
    max_upload: int = 100_000_000  # bytes of a file
    idle_s: float = 300.0  # without any message


def read_keys(path: str | Path) -> dict[str, int]:
    """Read a file of keys: one a line, perhaps with a tab and how many streams it may have at once.

    Raises:
        ConfigError: it can't be read, or a line is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: can't read the keys ({exc})") from exc
    keys = {}
    for number, line in enumerate(lines, 1):
        key, tab, limit = line.strip().partition("\t")
        if not key or key.startswith("#"):
            continue
        if tab and not (limit.isdecimal() and int(limit) > 0):
            raise ConfigError(f"{path}:{number}: {limit!r} is no number of streams")
        keys[key] = int(limit) if tab else 1_000_000
    if not keys:
        raise ConfigError(f"{path}: no keys in it")
    return keys


@dataclass
class Gate:
    """Lets connections in, or says why not.

    Attributes:
        keys: each with how many streams it may have at once; none lets everybody in.
        origins: web pages that may connect, beside those of this server; ``*`` is all.
    """

    keys: dict[str, int] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    caps: Caps = Caps()
    in_use: Counter[str] = field(default_factory=Counter)

    def find_key(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        """Return the key that a request shows, if it is one; "" where none are needed."""
        if not self.keys:
            return ""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token"):
            shown = (
                headers.get("x-api-key", "")
                or headers.get("kyutai-api-key", "")
                or query.get("api_key", "")
                or query.get("auth_id", "")
                or _find_offered(headers.get("sec-websocket-protocol", ""))
            )
        found = None
        for key in self.keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(key.encode(), shown.strip().encode()):
                found = key
        return found

    def allows_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether the page that connects may; programs other than browsers name none."""
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        try:
            return urlsplit(origin).netloc == headers.get("host", "")
        except ValueError:
            return False

    def take(self, key: str) -> bool:
        """Count a stream of a key, unless it has all that it may have."""
        if key and self.in_use[key] >= self.keys[key]:
            return False
        self.in_use[key] += 1
        return True

    def leave(self, key: str) -> None:
        """Count a stream's end."""
        self.in_use[key] -= 1


def _find_offered(protocols: str) -> str:
    """Return a key among subprotocols: browsers can send no other header with a websocket."""
    offered = [name.strip() for name in protocols.split(",")]
    if offered[0] in ("token", "bearer") and offered[1:]:
        return offered[1]
    prefix = "openai-insecure-api-key."
    return next((name.removeprefix(prefix) for name in offered if name.startswith(prefix)), "")


class MessageRate:
    """Allows so many messages a second, and twice as many at once."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.left, self.then = 2 * per_second, time.monotonic()

    def allows(self) -> bool:
        """Count a message."""
        now = time.monotonic()
        self.left = min(2 * self.per_second, self.left + (now - self.then) * self.per_second)
        self.then = now
        self.left -= 1
        return self.left >= 0
