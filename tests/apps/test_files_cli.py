"""``audiossm transcribe`` with files for results: skipped, resumed, by workers, followed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.audio import growing
from audiossm.models import save_recogniser
from audiossm.streaming import Transcriber, Transcript, Word
from audiossm_apps import partial, recording, transcribe, whole_file, workers
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber, read_speech
from tiny_writer import make_writer

RIVER, GARDEN = SPEECH / "river.flac", SPEECH / "garden.flac"


@pytest.fixture
def model(monkeypatch):
    """The tiny models in the place of the shipped ones; blocks and snapshots every half second."""
    fake = make_transcriber()
    monkeypatch.setattr(recording, "BLOCK_S", 0.7)
    monkeypatch.setattr(partial, "EVERY_S", 0.5)
    monkeypatch.setattr(partial, "MOST_SHARE", float("inf"))
    loads = []

    def load(name=None, *, readable=False, **options):
        loads.append(name)
        monkeypatch.setattr(fake, "writer", make_writer() if readable else None)
        return fake

    monkeypatch.setattr(Transcriber, "load", load)
    return SimpleNamespace(loads=loads)


@pytest.fixture
def talks(tmp_path):
    """Two recordings, one of them a folder deeper, an hour old."""
    folder = tmp_path / "talks"
    (folder / "day").mkdir(parents=True)
    for source, name in [(RIVER, "river.flac"), (GARDEN, "day/garden.flac")]:
        target = folder / name
        target.write_bytes(source.read_bytes())
        os.utime(target, (time.time() - 3600, time.time() - 3600))
    return folder


def run(*argv: object) -> int:
    return main(["transcribe", *map(str, argv)])


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["txt", "json", "jsonl", "srt", "vtt"])
def test_each_recording_has_its_result_in_a_folder_that_mirrors_theirs(
    model, talks, tmp_path, kind, capsys
):
    out = tmp_path / "out"
    assert run(talks, "--output-dir", out, "--format", kind) == 0
    assert capsys.readouterr() == ("", "")
    assert list_files(out) == [f"day/garden.{kind}", f"river.{kind}"]
    for name in ("day/garden", "river"):
        assert run(talks / f"{name}.flac", "--format", kind) == 0
        assert (out / f"{name}.{kind}").read_text() == capsys.readouterr().out


def test_results_go_beside_recordings(model, talks):
    assert run(talks / "*.flac", talks / "day", "--beside") == 0
    assert list_files(talks) == ["day/garden.flac", "day/garden.txt", "river.flac", "river.txt"]


def test_what_is_done_is_skipped_with_one_line(model, talks, capsys):
    assert run(talks, "--beside") == 0
    before = (talks / "river.txt").stat().st_mtime_ns
    model.loads.clear()
    assert run(talks, "--beside") == 0
    assert model.loads == []  # there was nothing to do
    assert capsys.readouterr().err == (
        "audiossm: 2 of 2 results are newer than the recording: skipped "
        "(--overwrite makes it again)\n"
    )
    assert (talks / "river.txt").stat().st_mtime_ns == before
    assert run(talks, "--beside", "--overwrite") == 0
    assert (talks / "river.txt").stat().st_mtime_ns > before
    os.utime(talks / "river.flac")  # the recording is a new one
    (talks / "river.txt").write_text("old")
    os.utime(talks / "river.txt", (time.time() - 60, time.time() - 60))
    assert run(talks, "--beside") == 0
    assert capsys.readouterr().err.startswith(f"audiossm: {talks / 'day' / 'garden.txt'} is newer")
    assert (talks / "river.txt").read_text() != "old"


def test_a_damaged_recording_gives_what_it_has_and_is_tried_again(model, talks, capsys):
    audio = read_speech().copy()
    audio[40000] = np.nan
    soundfile.write(talks / "bad.wav", audio, 16000, subtype="FLOAT")
    for _ in range(2):
        assert run(talks, "--beside") == 1
        err = capsys.readouterr().err.splitlines()
        assert err[-2].startswith(f"audiossm: error: {talks / 'bad.wav'}: the sample at 2.500 s")
        assert err[-1] == "audiossm: 1 of 3 files failed"
        assert (talks / "bad.txt").read_text().strip()


def test_a_result_that_cannot_be_written_stops_nothing_else(model, talks, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "day").write_text("in the way")
    assert run(talks, "--output-dir", out) == 1
    assert f"{out / 'day'}: the folder can't be made: " in capsys.readouterr().err
    assert list_files(out) == ["day", "river.txt"]


def test_missing_files_and_empty_folders_cost_a_line_each(model, talks, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    missing = tmp_path / "nowhere.wav"
    assert run(talks, missing, tmp_path / "empty", "--output-dir", tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"audiossm: error: {tmp_path / 'empty'}: there is no audio in this folder",
        f"audiossm: error: {missing}: no such file or directory",
        "audiossm: 2 of 4 files failed",
    ]


def test_json_of_a_folder_is_a_list_on_standard_output(model, talks, capsys):
    assert run(talks / "day", "--format", "json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["file"] == str(talks / "day" / "garden.flac")


def stop_at(monkeypatch, save_number: int, error: BaseException) -> None:
    """Stop behind a snapshot that was written."""
    save, count = partial.Partial.save, [0]

    def save_and_stop(self, progress):
        save(self, progress)
        count[0] += 1
        if count[0] == save_number:
            raise error

    monkeypatch.setattr(partial.Partial, "save", save_and_stop)


class Crash(Exception):
    pass


@pytest.mark.parametrize("kind", ["json", "srt"])
@pytest.mark.parametrize(
    "options", [[], ["--raw"], ["--flush-at", "0.7,1.4,2"], ["--channels", "split"], ["--live"]]
)
def test_a_run_goes_on_from_any_snapshot_to_the_same_bytes(
    model, tmp_path, monkeypatch, kind, options, capsys
):
    if kind == "srt" and "split" in options:
        return
    source, target = tmp_path / "a.wav", tmp_path / f"a.{kind}"
    side = tmp_path / f"a.{kind}.partial"
    both = np.stack([read_speech("river")[:50000], read_speech("garden")[:50000]], axis=1)
    soundfile.write(source, both, 16000)
    argv = [source, "--beside", "--format", kind, *options]
    assert run(*argv) == 0
    whole = target.read_bytes()
    assert not side.exists()
    for number in (1, 2, 3):
        target.unlink()
        with monkeypatch.context() as patch:
            stop_at(patch, number, Crash())
            with pytest.raises(Crash):
                run(*argv)
        assert list_files(tmp_path) == sorted(["a.wav", side.name])
        capsys.readouterr()
        assert run(*argv) == 0
        assert capsys.readouterr().err.startswith(f"audiossm: {source}: goes on at ")
        assert target.read_bytes() == whole
        assert not side.exists()


def test_ctrl_c_leaves_no_half_result_and_a_place_to_go_on(model, talks, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, 2, KeyboardInterrupt())
        assert run(talks / "river.flac", "--beside") == 130
    assert list_files(talks) == ["day/garden.flac", "river.flac", "river.txt.partial"]
    assert run(talks / "river.flac", "--beside") == 0
    assert list_files(talks) == ["day/garden.flac", "river.flac", "river.txt"]


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (None, ["--lookahead-ms", "160"], "the look-ahead is another one now"),
        (None, ["--raw"], "the writer is another one now"),
        (None, ["--decoder", "greedy", "--live"], "the option --live is another one now"),
        ("source", [], "the recording's time is another one now"),
        ("partial", [], "it is damaged, or of another version"),
    ],
)
def test_a_snapshot_of_something_else_is_ignored_with_a_line(
    model, talks, monkeypatch, change, options, reason, capsys
):
    source, side = talks / "river.flac", talks / "river.txt.partial"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, Crash())
        with pytest.raises(Crash):
            run(source, "--beside")
    if change == "source":
        touch(source)
    elif change == "partial":
        side.write_bytes(side.read_bytes()[:-1000])
    assert run(source, "--beside", *options) == 0
    assert capsys.readouterr().err == f"audiossm: {side}: {reason}: {source} is begun again\n"
    assert not side.exists()
    assert run(source, *options) == 0
    assert (talks / "river.txt").read_text() == capsys.readouterr().out


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The options that name tiny models as folders: for other processes."""
    folder = tmp_path_factory.mktemp("models")
    save_recogniser(folder / "tiny", "", make_transcriber().network)
    return ["--model", str(folder / "tiny"), "--raw"]


KILLED = """
import os, signal, sys
from audiossm_apps import cli, partial, recording
recording.BLOCK_S, partial.EVERY_S = 0.7, 0.5
save, count = partial.Partial.save, []
def save_and_die(self, progress):
    save(self, progress)
    count.append(1)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
partial.Partial.save, partial.MOST_SHARE = save_and_die, float("inf")
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_to_the_same_bytes(talks, folders, monkeypatch, capsys):
    monkeypatch.setattr(recording, "BLOCK_S", 0.7)
    source, target = talks / "river.flac", talks / "river.json"
    argv = ["transcribe", str(source), "--beside", "--format", "json", *folders]
    assert main(argv) == 0
    whole = target.read_bytes()
    target.unlink()
    done = subprocess.run([sys.executable, "-c", KILLED, *argv, "--threads", "1"])
    assert done.returncode == -signal.SIGKILL
    assert list_files(talks) == ["day/garden.flac", "river.flac", "river.json.partial"]
    assert main(argv) == 0
    assert capsys.readouterr().err == (f"audiossm: {source}: goes on at 1 s ({target}.partial)\n")
    assert target.read_bytes() == whole


def test_workers_give_the_same_results_in_the_same_order(talks, tmp_path, folders, capfd):
    # the longest first, so that it ends last
    soundfile.write(talks / "a long one.wav", np.tile(read_speech(), 4), 16000)
    (talks / "b bad.mp3").write_bytes(b"no audio " * 50)
    assert run(talks, *folders, "--threads", 1) == 1
    alone = capfd.readouterr()
    assert run(talks, *folders, "--jobs", 2) == 1
    assert capfd.readouterr() == alone
    assert alone.out.count("\n") == 3 and "b bad.mp3: not audio" in alone.err
    out = tmp_path / "out"
    assert run(talks, *folders, "--jobs", 2, "--output-dir", out) == 1
    assert capfd.readouterr() == ("", alone.err)
    texts = [(out / name).read_text() for name in ("a long one.txt", "river.txt", "day/garden.txt")]
    assert sorted(alone.out.splitlines()) == sorted("".join(texts).splitlines())
    assert list_files(out) == ["a long one.txt", "day/garden.txt", "river.txt"]


def test_workers_that_cannot_load_a_model_say_it_once(talks, tmp_path, capfd):
    assert run(talks, "--jobs", 2, "--model", tmp_path / "none") == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_ctrl_c_ends_workers_and_leaves_whole_what_is_done(talks, folders, tmp_path):
    out = tmp_path / "out"
    # many seconds of work
    soundfile.write(talks / "z.wav", np.tile(read_speech(), 600), 16000)
    command = [sys.executable, "-m", "audiossm_apps.cli", "transcribe", str(talks), *folders]
    with subprocess.Popen(
        [*command, "--jobs", "2", "--output-dir", str(out)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (out / "day" / "garden.txt").exists() or not (out / "river.txt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        assert process.stderr is not None
        assert process.stderr.read() == b"audiossm: stopped\n"
    assert process.returncode == 130
    assert [name for name in list_files(out) if not name.endswith(".partial")] == [
        "day/garden.txt",
        "river.txt",
    ]


def test_ctrl_c_prints_what_is_whole_though_one_before_it_is_not(talks, monkeypatch, capsys):
    def stop(tasks, args, hotwords, num_workers):
        for number in (2, 0):
            transcript = Transcript(f"text {number}", 1.0, "tiny", ())
            yield number, workers.Outcome(((tasks[number].source, transcript),))
        raise KeyboardInterrupt

    monkeypatch.setattr(transcribe, "run_tasks", stop)
    soundfile.write(talks / "z.wav", read_speech(), 16000)
    assert run(talks, "--jobs", 2) == 130
    assert capsys.readouterr() == ("text 0\ntext 2\n", "audiossm: stopped\n")


def test_a_worker_that_is_killed_costs_its_recording_alone(talks, folders, capfd, monkeypatch):
    soundfile.write(talks / "z.wav", read_speech(), 16000)
    begin = workers._Worker.begin

    def begin_and_kill(self, number, task):
        begin(self, number, task)
        if task.source.endswith("z.wav"):
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(workers._Worker, "begin", begin_and_kill)
    assert run(talks / "z.wav", talks / "river.flac", *folders, "--jobs", 2) == 1
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    assert err.splitlines() == [
        f"audiossm: error: {talks / 'z.wav'}: its process ended early (killed by signal 9: "
        "out of memory?)",
        "audiossm: 1 of 2 files failed",
    ]


@pytest.mark.parametrize("name", ["a.wav", "a.raw"])
def test_a_growing_file_is_followed(model, tmp_path, name, capsys):
    speech = (read_speech()[:48000] * 32767).astype("<i2")
    soundfile.write(tmp_path / "whole.wav", speech, 16000)
    assert run(tmp_path / "whole.wav", "--raw") == 0
    expected = capsys.readouterr().out
    data = (tmp_path / "whole.wav").read_bytes()
    if name == "a.raw":
        data = data[44:]
    else:
        data = data[:40] + bytes(4) + data[44:]  # the length isn't known yet
    path = tmp_path / name
    path.write_bytes(data[:30000])

    def record():
        for at in range(30000, len(data), 9001):
            time.sleep(0.05)
            with open(path, "ab") as file:
                file.write(data[at : at + 9001])

    thread = threading.Thread(target=record)
    thread.start()
    options = ["--raw-rate", 16000] if name == "a.raw" else []
    assert run(path, "--raw", "--follow", "--follow-timeout", "0.5", *options) == 0
    thread.join()
    assert capsys.readouterr() == (expected, "")


def test_words_of_a_growing_file_come_while_it_grows_and_ctrl_c_is_its_end(
    model, tmp_path, monkeypatch
):
    path = tmp_path / "a.wav"
    soundfile.write(path, read_speech(), 16000)
    told: list[Word] = []

    def press(seconds):
        assert told  # it waits for more, and what it had is out
        raise KeyboardInterrupt

    defaults = (press, time.monotonic)
    monkeypatch.setattr(growing.GrowingFile.__init__, "__defaults__", defaults)
    make = recording.make_writer

    def spy(*args, **options):
        writer = make(*args, **options)
        word = writer.word
        monkeypatch.setattr(writer, "word", lambda item: (told.append(item), word(item)))
        return writer

    monkeypatch.setattr(recording, "make_writer", spy)
    assert run(path, "--raw", "--follow", "--beside", "--format", "srt") == 130
    text = (tmp_path / "a.srt").read_text()
    assert all(word.text in text for word in told)


def test_a_crash_while_a_result_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(whole_file.os, "fsync", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        whole_file.write_whole(target, b"new, but not all of it")
    assert list_files(tmp_path) == ["a.txt"] and target.read_text() == "old"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.wav", "--overwrite"], "--overwrite is about results that exist"),
        (["a.wav", "--beside", "--output-dir", "x"], "not allowed with"),
        (["-", "--beside"], "standard input (-) goes to one place"),
        (["-", "--jobs", "2"], "standard input (-) goes to one place"),
        (["a.wav", "b.wav", "--follow"], "--follow is about one file"),
        ([".", "--follow"], "--follow is about one file"),
        (["a.wav", "--follow-timeout", "3"], "--follow-timeout needs --follow"),
        (["a.wav", "--max-lines", "1"], "are about --format srt and vtt"),
        (["a.wav", "--jobs", "0"], "'0' is not a whole number of at least 1"),
        (["a.wav", "--channels", "split", "--beside", "--format", "srt"], "holds one transcript"),
    ],
)
def test_options_that_do_not_go_together_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of a process here")
def test_a_worker_that_is_told_to_end_while_it_frees_something_ends_all_the_same():
    code = """
import os, signal, time
from audiossm_apps.workers import _end_when_told
_end_when_told()
class Slow:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
try:
    slow = Slow()
    del slow
    time.sleep(60)
finally:
    print("cleaned up")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cleaned up\n", b"")
