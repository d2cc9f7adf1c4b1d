"""A server of the native protocol without any socket or engine, which can die and come back."""

import numpy as np

from audiossm.protocol import ServerProtocol, encode
from audiossm.protocol import native as n
from audiossm.protocol.encoding import OPUS_PREROLL, Opus

__all__ = ["TOY_HEAD", "ToyServer", "make_toy_page"]

TOY_HEAD = b"head"


def make_toy_page(start: int, samples: np.ndarray) -> bytes:
    """What stands for a page of Opus here: where it begins, and its samples as they are."""
    return start.to_bytes(8, "little") + samples.astype("<f4").tobytes()


class ToyServer:
    """Tells an event for every 100 samples, and for each control; its snapshots are tuples."""

    def __init__(self, credit: int = 350, keeps_within: bool = False) -> None:
        self.credit, self.keeps_within = credit, keeps_within
        self.kept: dict[str, tuple[list[float], int, list[n.Reply]]] = {}
        self.handle: str | None = None
        self.protocol = ServerProtocol()
        self.decoded: int | None = None

    def connect(self) -> None:
        """Take a new connection, in a new process as it were: only what is kept remains."""
        self.protocol, self.handle = ServerProtocol(), None
        self.decoded = None  # or how far pages of this connection reach, -1 after the head

    def keep(self) -> list[str]:
        """Make a snapshot, and say so."""
        if self.handle is None:
            return []
        self.kept[self.handle] = ([*self.heard], self.controls, [*self.events])
        self.durable = len(self.heard), self.controls
        return [self.ack()]

    def ack(self) -> str:
        return encode(
            n.Ack(
                seq=len(self.events),
                received=len(self.heard),
                durable=self.durable[0],
                controls=self.durable[1],
                credit=self.credit,
            )
        )

    def receive(self, message: str | bytes) -> list[str]:
        """Answer a message."""
        request = self.protocol.receive(message)
        match request:
            case n.Start():
                self.handle = f"h{len(self.kept)}"
                self.heard, self.controls, self.events = [], 0, []
                self.keep()
                reply = n.Started(
                    seq=0,
                    handle=self.handle,
                    model="toy",
                    sample_rate=16000,
                    credit=self.credit,
                    state_bytes=100,
                )
                return [encode(reply)]
            case n.Resume():
                if request.handle not in self.kept:
                    return [encode(n.Failure(seq=0, code="unknown", message="no"))]
                self.handle = request.handle
                heard, self.controls, events = self.kept[self.handle]
                self.heard, self.events = [*heard], [*events]
                self.durable = len(self.heard), self.controls
                reply = n.Resumed(
                    seq=min(request.seq, len(events)),
                    handle=self.handle,
                    model="toy",
                    sample_rate=16000,
                    received=len(heard),
                    controls=self.controls,
                    credit=self.credit,
                    state_bytes=100,
                )
                return [encode(reply), *map(encode, events[request.seq :])]
            case n.Audio(samples):
                assert len(samples) <= self.credit
                return self.hear(samples)
            case Opus(data):
                return self.hear(self.decode(data))
            case n.Seen():
                return []
            case n.Finish():
                return [self.tell(n.Finished, received=len(self.heard), control=1)]
        return [self.tell(n.Flushed, received=len(self.heard), control=1)]

    def decode(self, data: bytes) -> np.ndarray:
        """Return what a page has that wasn't heard; holes and missing packets are mistakes."""
        if data == TOY_HEAD:
            assert self.decoded is None
            self.decoded = -1
            return np.zeros(0)
        start, samples = int.from_bytes(data[:8], "little"), np.frombuffer(data[8:], "<f4")
        received = len(self.heard)
        if self.decoded == -1:
            assert start <= max(0, received - OPUS_PREROLL)
            self.decoded = start
        assert self.decoded == start
        self.decoded += len(samples)
        return samples[max(0, received - start) :]

    def hear(self, samples: np.ndarray) -> list[str]:
        """Take samples."""
        before, acks = len(self.events), []
        for number, sample in enumerate(samples.tolist()):
            if self.keeps_within and number == len(samples) // 2:
                acks = self.keep()
            self.heard.append(sample)
            if len(self.heard) % 100 == 0:
                word = f"{round(sum(self.heard[-100:]) * 32768)}"
                self.tell(n.Word, word=word, start_s=0.0, end_s=0.0, confidence=1.0)
        return [*map(encode, self.events[before:]), *acks, self.ack()]

    def tell(self, kind: type[n.Reply], control: int = 0, **fields: object) -> str:
        self.controls += control
        self.events.append(kind(seq=len(self.events) + 1, **fields))
        return encode(self.events[-1])
