"""Speech through a session in pieces, with things done to it on the way."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from audiossm.streaming import Endpoint, Event, Session, Token

__all__ = ["plain", "run_pieces"]

Action = Callable[[Session], Sequence[Event] | None]


def run_pieces(
    session: Session,
    speech: NDArray[np.float32],
    sizes: Sequence[int],
    stops: Sequence[tuple[int, Action]] = (),
    restore: bool = False,
) -> list[Event]:
    """Feed speech in pieces of these sizes, over and over; at each stop, do something and go on.

    With ``restore`` each piece is followed by a snapshot and another session that goes on from it.
    """
    events: list[Event] = []
    start = 0
    for stop, action in [*sorted(stops, key=lambda stop: stop[0]), (len(speech), Session.finish)]:
        at = turn = 0
        while start + at < stop:
            piece = speech[start + at : min(start + at + sizes[turn % len(sizes)], stop)]
            events += session.push(piece)
            at, turn = at + len(piece), turn + 1
            if restore:
                session = Session.restore(session.transcriber, session.snapshot())
        start = stop
        events += action(session) or []
    return events


def plain(events: list[Event]) -> list[tuple[object, ...]]:
    """All but the probabilities, which are as near as float32 sums are."""
    return [
        (event.id, event.frame) if isinstance(event, Token)
        else (event.rule, event.time_s, event.start_s, event.end_s) if isinstance(event, Endpoint)
        else (event.word, event.start_s, event.end_s)
        for event in events
    ]  # fmt: skip
