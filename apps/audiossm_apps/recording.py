"""One recording through a session to a writer of transcripts, or to a file of its own."""

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audiossm import __version__
from audiossm.cues import CueShape
from audiossm.errors import AudioError, SnapshotError
from audiossm_apps.complaint import complain
from audiossm_apps.outputs import LiveText, TranscriptWriter, make_writer
from audiossm_apps.partial import Partial, Progress
from audiossm_apps.progress import show_progress
from audiossm_apps.whole_file import make_folder, write_whole

if TYPE_CHECKING:
    from audiossm.audio import AudioReader
    from audiossm.hotwords import HotWord
    from audiossm.streaming import EndpointRules, Event, Session, Transcriber

__all__ = ["cue_shape", "is_raw", "transcribe_recording", "transcribe_to_file"]

BLOCK_S = 20.0
LIVE_BLOCK_S = 0.02


def cue_shape(args: argparse.Namespace) -> CueShape:
    """Return how large subtitles may be, by the options."""
    return CueShape(line_length=args.max_line_length, num_lines=args.max_lines)


def transcribe_to_file(
    transcriber: "Transcriber",
    source: str,
    target: Path,
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
    *,
    shows_bar: bool,
) -> None:
    """Transcribe a recording to a file of its own, which appears whole.

    A long recording goes on where a crash or Ctrl-C left it. What was recognised before damage is
    written, but as old as the recording, so that the next run tries again.

    Raises:
        AudioError: the recording can't be read (to its end).
        OutputError: the result can't be written.
    """
    text = io.StringIO()
    writer = make_writer(
        args.format,
        text,
        as_list=args.channels == "split",
        as_they_come=False,
        shape=cue_shape(args),
    )
    following = args.follow is not None
    partial = None
    make_folder(target)
    if not following:
        try:
            partial = Partial(target, source, _list_options(transcriber, args, hotwords))
        except OSError as exc:
            raise AudioError(f"{source}: {(exc.strerror or str(exc)).lower()}") from exc

    def finish(as_old_as: str | None = None) -> None:
        writer.close()
        write_whole(target, text.getvalue().encode(), as_old_as=as_old_as)

    try:
        transcribe_recording(
            transcriber, source, writer, args, hotwords, shows_bar=shows_bar, partial=partial
        )
    except AudioError:
        if text.tell():
            finish(as_old_as=source)
        raise
    except KeyboardInterrupt:
        if following and text.tell():  # for such a file it is the end
            finish()
        raise
    finish()
    if partial is not None:
        partial.remove()


def transcribe_recording(
    transcriber: "Transcriber",
    source: str,
    writer: TranscriptWriter,
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
    *,
    shows_bar: bool,
    partial: Partial | None = None,
) -> None:
    """Transcribe a recording; what was recognised before damage or Ctrl-C is handed on, too.

    Raises:
        AudioError: the recording can't be read (to its end).
        OutputError: the result, or ``partial``, can't be written.
    """
    from audiossm.audio import open_audio
    from audiossm.streaming import Session, Token, TranscriptDraft, Word, WrittenWord
    from audiossm.streaming.files import transcribe_channels

    def show_unfinished(session: Session) -> None:
        if isinstance(writer, LiveText) and not split:
            words = (*(word.word for word in session.unwritten), session.partial.strip())
            writer.unfinished(" ".join(words))

    split = args.channels == "split"
    raw_rate = args.raw_rate if is_raw(source) else None
    with open_audio(source, raw_rate=raw_rate, follow_s=args.follow) as reader:
        kind = Word if transcriber.writer is None else WrittenWord
        num_channels = reader.channels if split else 1
        begun = _go_on(transcriber, reader, partial, num_channels)
        readable = transcriber.writer is not None
        drafts = [TranscriptDraft(readable, args.nbest) for _ in range(num_channels)]
        # all but tokens: what a later run makes its drafts of
        told: list[list[Event]] = [[] for _ in range(num_channels)]
        rules = _read_rules(args)
        num_samples = 0

        def note(channel: int, event: "Event") -> None:
            if isinstance(event, Token):
                writer.token(event)
                return
            told[channel].append(event)
            drafts[channel].add(event)
            if isinstance(event, kind):
                writer.word(event)

        if begun is not None:
            num_samples = begun.position
            for channel, events in enumerate(begun.events):
                for event in events:
                    note(channel, event)
        sessions: list[Session] = []
        complete = False

        def begin_session() -> Session:
            if begun is None:
                session = transcriber.session(
                    reader.sample_rate, args.lookahead_ms, hotwords, rules, args.nbest
                )
            else:
                session = begun.sessions[len(sessions)]
            sessions.append(session)
            return session

        def count_block(size: int) -> None:
            nonlocal num_samples
            num_samples += size
            advance(size)
            show_unfinished(sessions[0])
            if partial is not None and partial.is_due(num_samples, reader.sample_rate):
                snapshots = tuple(session.snapshot() for session in sessions)
                partial.save(Progress(num_samples, tuple(map(tuple, told)), snapshots))

        try:
            with show_progress(reader.name, reader.num_samples, shown=shows_bar) as advance:
                advance(num_samples)
                for channel, event in transcribe_channels(
                    reader,
                    begin_session,
                    channels=args.channels,
                    block_s=LIVE_BLOCK_S if args.live else BLOCK_S,
                    flush_at=args.flush_at,
                    on_block=count_block,
                    start=num_samples,
                ):
                    note(channel, event)
            complete = True
        finally:
            for channel, draft in enumerate(drafts):
                if not complete and readable and channel < len(sessions):
                    for word in sessions[channel].unwritten:
                        draft.words.append(word)
                        writer.word(word)
                if complete or draft.words:
                    name = f"{source} [channel {channel + 1}]" if split else source
                    duration_s = num_samples / reader.sample_rate
                    writer.done(name, draft.build(duration_s, transcriber.name))


def _read_rules(args: argparse.Namespace) -> "EndpointRules | None":
    from audiossm.streaming import EndpointRules

    if args.no_endpoints:
        return None
    given = {"pause_s": args.pause, "longest_s": args.longest_segment}
    return EndpointRules(**{name: value for name, value in given.items() if value is not None})


class _Begun(NamedTuple):
    """A recording that was begun by an earlier run: ``Progress`` with its sessions alive."""

    position: int
    events: "tuple[tuple[Event, ...], ...]"
    sessions: "list[Session]"


def _go_on(
    transcriber: "Transcriber", reader: "AudioReader", partial: Partial | None, num_channels: int
) -> _Begun | None:
    """Go on to where an earlier run was stopped, if there is one that this one can go on from."""
    from audiossm.streaming import Session

    if partial is None or (progress := partial.load()) is None:
        return None
    try:
        sessions = [
            Session.restore(transcriber, data, same_numerics=True) for data in progress.sessions
        ]
    except SnapshotError as exc:
        partial.ignore(str(exc))
        return None
    if len(sessions) != num_channels or sessions[0].sample_rate != reader.sample_rate:
        partial.ignore("the recording has another form now")
        return None
    reader.skip(progress.position)
    at_s = progress.position / reader.sample_rate
    complain(f"{partial.source}: goes on at {at_s:.0f} s ({partial.path})", kind="")
    partial.saved_position = progress.position
    return _Begun(progress.position, progress.events, sessions)


def is_raw(source: str) -> bool:
    """Tell whether samples come without a header, if ``--raw-rate`` is given."""
    return source == "-" or Path(source).suffix.lower() == ".raw"


def _list_options(
    transcriber: "Transcriber", args: argparse.Namespace, hotwords: "tuple[HotWord, ...]"
) -> dict[str, Any]:
    """Name what decides about the words, and their confidence to the last digit."""
    writer = transcriber.writer
    return {
        "version of audiossm": __version__,
        "model": transcriber.hash,
        "writer": None if writer is None else writer.hash,
        "decoder": transcriber.decoder,
        "look-ahead": args.lookahead_ms,
        "list of hot words": [[word.phrase, word.weight] for word in hotwords],
        "device": args.device,
        "backend": args.backend,
        "choice of channels": args.channels,
        "option --live": args.live,
        "option --flush-at": args.flush_at,
        "rule of segments": [args.pause, args.longest_segment, args.no_endpoints],
        "number of --nbest": args.nbest,
        "rate of raw samples": args.raw_rate,
    }
