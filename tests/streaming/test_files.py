"""A recording through a session: blocks don't matter, flushes are exact, damage comes last."""

import numpy as np
import pytest

from audiossm.errors import AudioError
from audiossm.streaming.files import transcribe_channels, transcribe_stream

RATE = 1000


class Reader:
    """Gives ``audio`` in pieces of at most ``most`` samples, then fails if told to."""

    sample_rate = RATE

    def __init__(self, audio: np.ndarray, most: int = 10**9, error: BaseException | None = None):
        self.audio, self.most, self.error = audio, most, error
        self.channels = audio.shape[0]

    def read(self, max_samples: int) -> np.ndarray:
        assert max_samples > 0
        size = min(max_samples, self.most)
        piece, self.audio = self.audio[:, :size], self.audio[:, size:]
        if piece.shape[1] == 0 and self.error is not None:
            raise self.error
        return piece


class Recorder:
    """A session whose events are what was done to it; pushed samples count one by one."""

    def push(self, samples: np.ndarray) -> list[object]:
        return samples.tolist()

    def flush(self) -> list[object]:
        return ["flush"]

    def finish(self) -> list[object]:
        return ["finish"]


AUDIO = np.arange(2 * 2500, dtype=np.float32).reshape(2, 2500)


@pytest.mark.parametrize("most", [1, 7, 999, 10**9])
@pytest.mark.parametrize("block_s", [0.0001, 0.02, 20.0])
def test_events_do_not_depend_on_blocks_or_short_reads(most, block_s):
    events = list(
        transcribe_stream(
            Reader(AUDIO, most), Recorder, block_s=block_s, flush_at=[1.5, 0, 0.001, 1.5, 9]
        )
    )
    mean = AUDIO.mean(axis=0).tolist()
    assert events == [
        "flush",
        *mean[:1],
        "flush",
        *mean[1:1500],
        "flush",
        *mean[1500:],
        "finish",
    ]


def test_split_channels_go_to_sessions_of_their_own():
    events = list(transcribe_channels(Reader(AUDIO), Recorder, channels="split", block_s=1.0))
    for channel in (0, 1):
        own = [event for number, event in events if number == channel]
        assert own == [*AUDIO[channel].tolist(), "finish"]


def test_blocks_are_counted_once_they_are_pushed():
    sizes: list[int] = []
    list(transcribe_stream(Reader(AUDIO), Recorder, block_s=1.0, on_block=sizes.append))
    assert sizes == [1000, 1000, 500]


@pytest.mark.parametrize("error", [AudioError("cut off"), KeyboardInterrupt()])
def test_when_reading_breaks_the_events_so_far_come_first(error):
    events = []
    with pytest.raises(type(error)):
        for event in transcribe_stream(Reader(AUDIO, error=error), Recorder):
            events.append(event)
    assert events == [*AUDIO.mean(axis=0).tolist(), "finish"]
