"""How far a long recording is, in a file beside its result, so that a crash costs little."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiossm_apps.complaint import complain
from audiossm_apps.whole_file import write_whole

if TYPE_CHECKING:
    from audiossm.streaming import Event

__all__ = ["Partial", "Progress"]

VERSION = "audiossm-partial-2"
DIGEST_SIZE = hashlib.sha256().digest_size
EVERY_S = 30  # seconds of audio between two of them
MOST_SHARE = 0.05  # of the time may go into writing them, however long the list of words


@dataclass(frozen=True)
class Progress:
    """Where a recording stands after its first ``position`` samples.

    Attributes:
        position: samples that were pushed.
        events: what was told so far, for each channel, but for tokens.
        sessions: a snapshot for each channel.
    """

    position: int
    events: tuple[tuple["Event", ...], ...]
    sessions: tuple[bytes, ...]


class Partial:
    """The side file ``talk.srt.partial`` of a result ``talk.srt``.

    Args:
        target: the result.
        source: the recording.
        options: what decides about the result; another value of one of them, or a change of the
            recording, and the file is of no use.
    """

    def __init__(self, target: Path, source: str, options: Mapping[str, Any]) -> None:
        self.path = self.place(target)
        self.source = source
        status = os.stat(source)
        self.identity = {
            "recording's size": status.st_size,
            "recording's time": status.st_mtime_ns,
            **json.loads(json.dumps(options)),
        }
        self.saved_at_s, self.cost_s = 0.0, 0.0
        self.saved_position = 0

    @staticmethod
    def place(target: Path) -> Path:
        """Return where it is."""
        return target.with_name(f"{target.name}.partial")

    def load(self) -> Progress | None:
        """Return what was saved; if there is something that is of no use, a line says why."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            self.ignore(exc.strerror or str(exc))
            return None
        try:
            header, body = _unpack(data)
            differing = [
                key
                for key in [*self.identity, *header["identity"]]
                if self.identity.get(key) != header["identity"].get(key)
            ]
            if differing:
                self.ignore(f"the {differing[0]} is another one now")
                return None
            return _read_progress(header, body)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            self.ignore("it is damaged, or of another version")
            return None

    def ignore(self, reason: str) -> None:
        """Say why the file is of no use."""
        complain(f"{self.path}: {reason}: {self.source} is begun again", kind="")

    def is_due(self, position: int, sample_rate: int) -> bool:
        """Tell whether it is time for a next one."""
        enough = position - self.saved_position >= EVERY_S * sample_rate
        return enough and time.monotonic() - self.saved_at_s >= self.cost_s / MOST_SHARE

    def save(self, progress: Progress) -> None:
        """Write how far it is.

        Raises:
            OutputError: it can't be written.
        """
        begun_s = time.monotonic()
        write_whole(self.path, _pack(self.identity, progress))
        self.saved_at_s = time.monotonic()
        self.cost_s = self.saved_at_s - begun_s
        self.saved_position = progress.position

    def remove(self) -> None:
        """Remove the file: the result is there."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _pack(identity: Mapping[str, Any], progress: Progress) -> bytes:
    """Write a line of JSON, then the snapshots, then the SHA-256 of all that."""
    header = {
        "version": VERSION,
        "identity": identity,
        "position": progress.position,
        "events": [[_fields(event) for event in events] for events in progress.events],
        "sizes": [len(session) for session in progress.sessions],
    }
    data = (
        json.dumps(header, default=dataclasses.asdict).encode()
        + b"\n"
        + b"".join(progress.sessions)
    )
    return data + hashlib.sha256(data).digest()


def _unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    content, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("the digest is another one")
    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    if header["version"] != VERSION:
        raise ValueError(header["version"])
    return header, body


def _read_progress(header: Mapping[str, Any], body: bytes) -> Progress:
    events = tuple(tuple(map(_read_event, channel)) for channel in header["events"])
    sessions, at = [], 0
    for size in header["sizes"]:
        sessions.append(body[at : at + size])
        at += size
    return Progress(header["position"], events, tuple(sessions))


def _fields(event: "Event") -> list[Any]:
    """Return the name of its class and its values, in JSON's types."""
    return [type(event).__name__, *vars(event).values()]


def _read_event(fields: Sequence[Any]) -> "Event":
    from audiossm.streaming import Endpoint, Reading, Word, WrittenWord

    name, *values = fields
    if name == Endpoint.__name__:
        rule, time_s, start_s, end_s, readings = values
        given = tuple(Reading(**reading) for reading in readings)
        return Endpoint(rule, time_s, start_s, end_s, given)
    kinds: dict[str, type[Word | WrittenWord]] = {
        kind.__name__: kind for kind in (Word, WrittenWord)
    }
    return kinds[name](*values)
