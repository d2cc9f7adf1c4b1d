"""What the options of ``audiossm serve`` name, loaded: in this process, or in each of Ray's."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm.errors import ConfigError
from audiossm_apps.live.gate import Caps, Gate, read_keys
from audiossm_apps.options import load_transcriber

if TYPE_CHECKING:
    from audiossm.streaming import SpeechEngine
    from audiossm_apps.live.service import Service

__all__ = ["load_speech", "make_service", "read_store_key"]


def make_service(args: argparse.Namespace) -> "Service":
    """Load what the options name, and return what is to be served."""
    gate = Gate(
        read_keys(args.keys) if args.keys else {},
        tuple(args.origin),
        Caps(max_audio_s=args.max_hours * 3600),
    )
    if args.threads is None:
        args.threads = 1  # a stream's steps are small: threads serve streams, not products
    transcriber = load_transcriber(args, readable=not args.raw)
    speech = load_speech(args)

    from audiossm.streaming import Engine, EngineLimits, open_store
    from audiossm_apps.live.service import Service

    key = None if args.store_key is None else read_store_key(args.store_key)
    store = open_store(args.store or store_folder(), args.keep_s, key)
    limits = EngineLimits(capacity=args.capacity)
    return Service(Engine(transcriber, store, args.workers, limits), gate, speech)


def load_speech(args: argparse.Namespace) -> "SpeechEngine | None":
    """Return what speaks: None where no generator is shipped, or none is wanted.

    Raises:
        ModelError: the one that is named can't be used.
    """
    from audiossm.models import choose_device, shipped_generator
    from audiossm.streaming import Speaker, SpeechEngine, SpeechLimits

    name = shipped_generator() if args.speaker is None else args.speaker
    if name is None or name == "none":
        return None
    limits = SpeechLimits(capacity=args.speech_capacity)
    device = choose_device(args.device)
    return SpeechEngine(Speaker.load(name), None, limits, device=device)


def store_folder() -> Path:
    """Return where streams are kept by default."""
    from audiossm.graphs.stepper import cache_root

    return cache_root() / "streams"


def read_store_key(path: str) -> bytes:
    """Return what signs snapshots.

    Raises:
        ConfigError: it can't be read, or is too short or too long.
    """
    try:
        key = Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: can't read the key of the store ({exc.strerror})") from exc
    if len(key) != 32:
        raise ConfigError(f"{path}: a key of the store has 32 bytes, this one has {len(key)}")
    return key
