"""Sentences spoken by espeak-ng, which says exactly when each word and phone begins."""

import ctypes
import ctypes.util
import sys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["SpokenWord", "Voice"]

# of espeak-ng's speak_lib.h
RETRIEVAL, PHONE_EVENTS, PHONES_IN_IPA, UTF8, END_PAUSE = 1, 1, 2, 1, 0x1000
NO_EVENT, WORD_EVENT, PHONE_EVENT = 0, 1, 7


class EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("string", ctypes.c_char * 8)]


class Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    ]


Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


@dataclass
class SpokenWord:
    """When a word was said; None for the edges between words that espeak-ng joins ("of the")."""

    start_s: float | None = None
    end_s: float | None = None
    phones: list[float] = field(default_factory=list)  # when each begins, in seconds


class Voice:
    """espeak-ng, ready to speak."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            sys.exit("libespeak-ng isn't installed (Debian: apt install espeak-ng)")
        self.library = ctypes.CDLL(name)
        self.sample_rate = self.library.espeak_Initialize(
            RETRIEVAL, 0, None, PHONE_EVENTS | PHONES_IN_IPA
        )
        self.blocks: list[NDArray[np.int16]] = []
        self.events: list[tuple[int, int, float, bytes]] = []
        self.callback = Callback(self.receive)  # kept: the library holds only its address
        self.library.espeak_SetSynthCallback(self.callback)

    def receive(self, samples, num_samples: int, events) -> int:
        """Take a block of samples and its events; 0 goes on."""
        if samples and num_samples:
            self.blocks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        index = 0
        while (event := events[index]).type != NO_EVENT:
            text = event.id.string if event.type == PHONE_EVENT else b""
            time_s = event.audio_position / 1000
            self.events.append((event.type, event.text_position, time_s, text))
            index += 1
        return 0

    def speak(self, text: str, name: str) -> tuple[NDArray[np.float32], list[SpokenWord]]:
        """Say ``text`` with the voice ``name``.

        Returns:
            (samples,) float32 at ``sample_rate``, and a ``SpokenWord`` for each word of the text.
        """
        if self.library.espeak_SetVoiceByName(name.encode()):
            sys.exit(f"espeak-ng has no voice {name}")
        self.blocks, self.events = [], []
        data = text.encode("ascii")
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8 | END_PAUSE, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate(self.blocks).astype(np.float32) / 32768
        return samples, self._time_words(text)

    def _time_words(self, text: str) -> list[SpokenWord]:
        words = [SpokenWord() for _ in text.split()]
        # the last event of all is a word's that was told before
        starts: list[int] = []
        in_pause = True
        for kind, position, time_s, phone in self.events:
            if kind == WORD_EVENT and (not starts or position > starts[-1]):
                if not in_pause:
                    self._end(words, text, position, time_s)
                starts.append(position)
                words[len(text[: position - 1].split())].start_s = time_s
                in_pause = False
            elif kind == PHONE_EVENT and phone and starts:
                words[len(text[: starts[-1] - 1].split())].phones.append(time_s)
            elif kind == PHONE_EVENT and starts and position > starts[-1] and not in_pause:
                self._end(words, text, position, time_s)
                in_pause = True
        for word, following in zip(words, words[1:], strict=False):
            if following.start_s is None:
                word.phones = []  # they are of both
        return words

    def _end(self, words: list[SpokenWord], text: str, position: int, time_s: float) -> None:
        """End the last word that begins before a position in the text."""
        words[len(text[: position - 1].split()) - 1].end_s = time_s


if __name__ == "__main__":
    for sentence in sys.argv[1:]:
        spoken = Voice().speak(sentence, "en-us")[1]
        for written, word in zip(sentence.split(), spoken, strict=True):
            print(written, word)
