"""How many live streams this machine can listen to at once, measured."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import mix, open_audio
from audiossm.graphs.session import FEW_FRAMES
from audiossm.streaming.transcriber import Transcriber

__all__ = ["measure_capacity", "shipped_clip", "warm_up"]

CLIP_FILE = "first-light.flac"
# as an engine with many streams does
PIECE_S = 0.16
TURNS = 2
# the rest is for the event loop, snapshots, connections, and ends that come all at once
SHARE = 0.7


def shipped_clip() -> Path:
    """Return where the clip of speech is that comes with the package or stands in its checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_assets" / "audio"
    folder = installed if installed.is_dir() else package.parent / "assets" / "audio"
    return folder / CLIP_FILE


def warm_up(transcriber: Transcriber) -> None:
    """Load and compile what a live stream needs, so that the first one doesn't wait for it."""
    ways = transcriber.ways
    if ways.choose(1).startswith("onnx"):
        for count in ways.graphs.frame_counts:
            if count < FEW_FRAMES:
                ways.graphs.load(count)
    speak(transcriber, read_clip())


def measure_capacity(transcriber: Transcriber, num_workers: int) -> int:
    """Have all threads listen to speech for a while; return how many streams would fit.

    Each stream is begun, listened to in pieces of 160 ms, and ended. Call ``warm_up`` before.
    """
    clip = read_clip()
    with ThreadPoolExecutor(num_workers) as pool:
        started = time.perf_counter()
        turns = [pool.submit(speak, transcriber, clip) for _ in range(TURNS * num_workers)]
        heard_s = sum(turn.result() for turn in turns)
        spent_s = time.perf_counter() - started
    return max(1, int(SHARE * heard_s / spent_s))


def speak(transcriber: Transcriber, clip: NDArray[np.float32]) -> float:
    """Push a clip through a session of its own, and return how many seconds of audio it was."""
    session = transcriber.session(16000)
    size = round(PIECE_S * 16000)
    for at in range(0, len(clip), size):
        session.push(clip[at : at + size])
    session.fork().finish()
    return len(clip) / 16000


def read_clip() -> NDArray[np.float32]:
    """Return the clip, (samples,) float32 at 16 kHz."""
    with open_audio(shipped_clip()) as reader:
        return mix(np.concatenate(list(reader.blocks(reader.sample_rate)), axis=1))
