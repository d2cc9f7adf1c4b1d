"""How many live streams this machine can listen to at once, measured."""

import time

import numpy as np

from audiossm.streaming.transcriber import Transcriber

__all__ = ["measure_capacity"]

PIECE_S = 0.1
MEASURED_S = 2.0
# the rest is for the event loop, snapshots, ends of streams, and speech that is harder than noise
SHARE = 0.6


def measure_capacity(transcriber: Transcriber, num_workers: int) -> int:
    """Push two seconds of noise in pieces of 100 ms through one stream; return what would fit.

    The first call loads and compiles what a stream needs, which isn't counted.
    """
    rate = transcriber.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.05, int(rate * PIECE_S)).astype(np.float32)
    session = transcriber.session(rate)
    for _ in range(10):
        session.push(noise)
    started = time.perf_counter()
    for _ in range(round(MEASURED_S / PIECE_S)):
        session.push(noise)
    session.fork().finish()
    real_time_factor = (time.perf_counter() - started) / MEASURED_S
    return max(1, int(SHARE * num_workers / real_time_factor))
