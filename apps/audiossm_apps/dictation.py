"""From a microphone to words on a terminal, and to files."""

import argparse
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import AudioError, OutputError
from audiossm.hotwords import HotWord, read_hotwords
from audiossm.subtitles import format_srt
from audiossm_apps.complaint import complain
from audiossm_apps.ears import Ear, Heard, LocalEar, ServerEar
from audiossm_apps.mic_view import MicView, TerminalView, TextView, describe_sound
from audiossm_apps.microphone import Microphone, list_devices
from audiossm_apps.options import load_transcriber
from audiossm_apps.outputs import ByteOutput, open_bytes
from audiossm_apps.whole_file import write_whole

__all__ = ["dictate", "list_devices"]

SHOWN_EVERY_S = 0.1


def dictate(args: argparse.Namespace) -> None:
    """Write down what a microphone hears, by the options of ``audiossm mic``.

    Raises:
        AudioError: there is no such microphone, or it broke off.
        OutputError: a file of ``--save`` is there already, or can't be written.
    """
    hotwords = () if args.hotwords is None else read_hotwords(args.hotwords)
    paths = None if args.save is None else _name_files(args.save)
    microphone = Microphone(args.microphone)
    ear = _make_ear(args, hotwords)
    with contextlib.ExitStack() as stack:
        recording = None
        if paths is not None:
            stream = stack.enter_context(open_bytes(str(paths[0])))
            recording = _Recording(stream, microphone.sample_rate)
        view = TerminalView() if sys.stdout.isatty() else TextView()
        words: list[Heard] = []
        try:
            _listen(microphone, ear, view, recording, words, args.duration_s)
        finally:
            view.close()
            if recording is not None:
                recording.finish()
            if paths is not None and microphone.num_samples:
                write_whole(paths[1], format_srt(words).encode())
            _tell_losses(microphone, ear)
    if microphone.problem is not None:
        raise AudioError(microphone.problem)


def _name_files(name: str) -> tuple[Path, Path]:
    """Return the files of ``--save``; a recording can't be made again, so none is replaced."""
    base = name[:-4] if name.endswith((".wav", ".srt")) else name
    paths = Path(f"{base}.wav"), Path(f"{base}.srt")
    for path in paths:
        if path.exists():
            raise OutputError(f"{path} exists: choose another name for --save")
    return paths


def _make_ear(args: argparse.Namespace, hotwords: Sequence[HotWord]) -> Ear:
    if args.server is None:
        transcriber = load_transcriber(args, readable=not args.raw)
        return LocalEar(transcriber, args.lookahead_ms, hotwords)
    return ServerEar(
        args.server,
        args.key,
        args.raw,
        lookahead_ms=args.lookahead_ms,
        hotwords=tuple((word.phrase, word.weight) for word in hotwords),
    )


class _Recording:
    """The sound on its way to a file; safe to end while somebody writes."""

    def __init__(self, stream: ByteOutput, sample_rate: int) -> None:
        from audiossm.audio import WavWriter

        self.writer = WavWriter(stream, sample_rate, 1)
        self.lock, self.open = threading.Lock(), True

    def write(self, samples: NDArray[np.float32]) -> None:
        """Write samples (samples,); none after ``finish``."""
        with self.lock:
            if self.open:
                self.writer.write(samples[np.newaxis])

    def finish(self) -> None:
        """Set the header right."""
        with self.lock:
            self.open = False
            self.writer.finish()


def _listen(
    microphone: Microphone,
    ear: Ear,
    view: MicView,
    recording: _Recording | None,
    words: list[Heard],
    duration_s: float | None,
) -> None:
    """Show what is heard until Ctrl-C, the time's end, or the microphone's; a second one gives up.

    Recognition has a thread of its own; this one shows, so that it can be stopped at any time.
    """
    news: queue.SimpleQueue[tuple[Sequence[Heard], str] | BaseException | None]
    news = queue.SimpleQueue()

    def blocks() -> Iterator[NDArray[np.float32]]:
        for samples in microphone.blocks():
            if recording is not None:
                recording.write(samples)
            yield samples

    def work() -> None:
        try:
            ear.listen(
                blocks(), microphone.sample_rate, lambda heard, rest: news.put((heard, rest))
            )
        except BaseException as exc:  # it is raised again where it can be told
            news.put(exc)
        else:
            news.put(None)

    with microphone:
        print(f"audiossm: listening to {microphone.name}; Ctrl-C ends", file=sys.stderr, flush=True)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        end = None if duration_s is None else time.monotonic() + duration_s
        try:
            while _show_news(microphone, ear, view, news, words):
                if end is not None and time.monotonic() >= end:
                    break
            else:
                return
        except KeyboardInterrupt:
            pass
        microphone.stop()
        while _show_news(microphone, ear, view, news, words):
            pass


def _show_news(
    microphone: Microphone,
    ear: Ear,
    view: MicView,
    news: "queue.SimpleQueue[tuple[Sequence[Heard], str] | BaseException | None]",
    words: list[Heard],
) -> bool:
    """Show what comes within a moment; return whether more may come."""
    until = time.monotonic() + SHOWN_EVERY_S
    while (left := until - time.monotonic()) > 0:
        try:
            item = news.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return False
        words += item[0]
        view.words(*item)
    view.sound(
        describe_sound(
            microphone.take_peak(),
            microphone.num_samples / microphone.sample_rate,
            waiting_s=microphone.waiting_s,
            overflows=microphone.overflows,
            dropped_s=microphone.dropped / microphone.sample_rate,
            note=ear.note,
        )
    )
    return True


def _tell_losses(microphone: Microphone, ear: Ear) -> None:
    if microphone.overflows:
        complain(f"the system lost sound {microphone.overflows} times (overflow)", kind="")
    if microphone.dropped:
        lost_s = microphone.dropped / microphone.sample_rate
        complain(f"{lost_s:.1f} s of sound were lost: recognition was too slow", kind="")
    if isinstance(ear, ServerEar) and ear.reconnects:
        complain(f"connected again: {ear.reconnects}", kind="")
