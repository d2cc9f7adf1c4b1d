"""Seats: live sessions whose states stay on a device and step together there."""

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from audiossm.errors import SessionError
from audiossm.models import LoadedRecogniser, RecogniserState
from audiossm.models.recogniser_slots import RecogniserSlots

__all__ = ["CardSeats"]

logger = logging.getLogger(__name__)


class Request:
    """Frames that a stream wants to be advanced by."""

    def __init__(self, place: int, frames: Tensor) -> None:
        self.place, self.frames = place, deque(frames)
        self.found: list[Tensor] = []
        self.error: Exception | None = None
        self.done = threading.Event()


class CardSeats:
    """Up to ``num_seats`` sessions of a transcriber that are stepped together by one thread.

    From here to ``close`` all its new sessions take a seat at their first step, if one is free: the
    state stays on the transcriber's device, and a step takes a backbone frame of everybody who
    waits. Threads may call sessions as ever, each of them one at a time; decoding is theirs, so any
    decoder will do. Who finds no seat is stepped alone, by torch. A session that is copied or kept
    comes to the CPU for it.

    Args:
        transcriber: on any device; on a CPU it gains nothing.
        num_seats: streams at once.
        tf32: as in ``RecogniserSlots``.
    """

    def __init__(
        self, transcriber: LoadedRecogniser, num_seats: int, *, tf32: bool = False
    ) -> None:
        self.transcriber = transcriber
        self.slots = RecogniserSlots(transcriber.network, num_seats, tf32=tf32)
        products = "tf32" if tf32 and transcriber.device.type == "cuda" else "float32"
        self.profile = f"slots-{products}-{transcriber.device.type}"
        self.num_steps = self.num_frames = 0
        self._free = deque(range(num_seats))
        self._device = threading.Lock()  # held while the device is given work
        self._condition = threading.Condition()
        self._line: deque[Request] = deque()
        self._closed = False
        self.slots.warm_up()
        transcriber.seats = self
        self._thread = threading.Thread(target=self._work, name="audiossm-seats", daemon=True)
        self._thread.start()

    @property
    def num_free(self) -> int:
        """Seats that nobody has."""
        return len(self._free)

    def sit(self, state: RecogniserState) -> "CardSeat | None":
        """Give a stream a seat, until nobody holds it any more; None if all are taken."""
        try:
            place = self._free.popleft()
        except IndexError:
            return None
        with self._device:
            self.slots.write([place], state, 0, 0)
        return CardSeat(self, place, self._free.append)

    def read(self, place: int) -> RecogniserState:
        """Return a seat's state, on the CPU."""
        with self._device:
            return self.slots.read(place).network

    def advance(self, place: int, frames: Tensor) -> Tensor:
        """Step a seat by (frames, frame_size): log-probabilities (1, label frames, symbols).

        Raises:
            SessionError: the seats were closed.
        """
        request = Request(place, frames)
        with self._condition:
            if self._closed:
                raise SessionError("this engine was closed")
            self._line.append(request)
            self._condition.notify()
        request.done.wait()
        if request.error is not None:
            raise request.error
        return torch.cat(request.found).unsqueeze(0)

    def close(self) -> None:
        """End the thread; sessions go on alone once their states are read."""
        if self.transcriber.seats is self:
            self.transcriber.seats = None
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._line and not self._closed:
                    self._condition.wait()
                turn, self._line = list(self._line), deque()
                if self._closed:
                    break
            try:
                self._step(turn)
            except Exception as exc:  # whoever waits must hear of it
                logger.exception("a step of %d streams failed", len(turn))
                _refuse(turn, exc)
                continue
            going_on = [request for request in turn if request.frames]
            with self._condition:
                self._line.extendleft(reversed(going_on))
            for request in turn:
                if not request.frames:
                    request.done.set()
        _refuse(turn, SessionError("this engine was closed"))

    def _step(self, turn: list[Request]) -> None:
        frames = torch.stack([request.frames.popleft() for request in turn])
        places = torch.tensor([request.place for request in turn])
        with self._device:
            labels = self.slots.step(places, frames, log_probs=True)
        for request, found in zip(turn, labels.log_probs(), strict=True):
            request.found.append(found)
        self.num_steps += 1
        self.num_frames += len(turn)


class CardSeat:
    """One session's seat; it is free again when nobody holds this."""

    def __init__(self, seats: CardSeats, place: int, give_back: Callable[[int], None]) -> None:
        self.seats, self.place = seats, place
        weakref.finalize(self, give_back, place).atexit = False

    def read(self) -> RecogniserState:
        """Return the state as a value of its own, on the CPU."""
        return self.seats.read(self.place)

    def step(self, x: Tensor) -> tuple[Tensor, ...]:
        """Advance by samples (1, frames * frame_size) together with whoever steps now.

        Returns:
            all outputs of a step side by side.
        """
        return (self.seats.advance(self.place, x.view(-1, self.seats.slots.config.frame_size)),)


def _refuse(turn: list[Request], error: Exception) -> None:
    for request in turn:
        request.error = error
        request.done.set()
