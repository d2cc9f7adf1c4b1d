"""A server of the native protocol without any socket or engine, which can die and come back."""

from audiossm.protocol import ServerProtocol, encode
from audiossm.protocol import native as n

__all__ = ["ToyServer"]


class ToyServer:
    """Tells an event for every 100 samples, and for each control; its snapshots are tuples."""

    def __init__(self, credit: int = 350, keeps_within: bool = False) -> None:
        self.credit, self.keeps_within = credit, keeps_within
        self.kept: dict[str, tuple[list[float], int, list[n.Reply]]] = {}
        self.handle: str | None = None
        self.protocol = ServerProtocol()

    def connect(self) -> None:
        """Take a new connection, in a new process as it were: only what is kept remains."""
        self.protocol, self.handle = ServerProtocol(), None

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
                before, acks = len(self.events), []
                for number, sample in enumerate(samples.tolist()):
                    if self.keeps_within and number == len(samples) // 2:
                        acks = self.keep()
                    self.heard.append(sample)
                    if len(self.heard) % 100 == 0:
                        word = f"{round(sum(self.heard[-100:]) * 32768)}"
                        self.tell(n.Word, word=word, start_s=0.0, end_s=0.0, confidence=1.0)
                return [*map(encode, self.events[before:]), *acks, self.ack()]
            case n.Seen():
                return []
            case n.Finish():
                return [self.tell(n.Finished, received=len(self.heard), control=1)]
        return [self.tell(n.Flushed, received=len(self.heard), control=1)]

    def tell(self, kind: type[n.Reply], control: int = 0, **fields: object) -> str:
        self.controls += control
        self.events.append(kind(seq=len(self.events) + 1, **fields))
        return encode(self.events[-1])
