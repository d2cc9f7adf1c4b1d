"""Proof that ``audiossm mic`` hears: a recording is played into a sound card that is made up.

    python tests/proofs/mic.py                         needs pulseaudio, paplay, PortAudio on ALSA

A PulseAudio of its own has a sink that nobody hears; its monitor is the microphone. The committed
recording is played to it at the pace of speech, while ``audiossm mic`` listens, with a model of its
own and then by an ``audiossm serve``; SIGINT ends it, as Ctrl-C does. The words must be those that
``transcribe`` writes of the recording, and the saved sound must give them again. The exit code is 1
otherwise.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from audiossm.streaming import Transcriber

AUDIO = Path(__file__).parents[2] / "assets" / "audio" / "first-light.flac"
COMMAND = [sys.executable, "-m", "audiossm_apps.cli"]


def listen(environment: dict[str, str], wav: Path, options: list[str]) -> str:
    """Listen while a file is played; return the words."""
    process = subprocess.Popen(
        [*COMMAND, "mic", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = process.stderr.readline()
    if "listening" not in told:
        raise RuntimeError(told + process.stderr.read())
    time.sleep(1)  # as people do
    subprocess.run(["paplay", str(wav)], env=environment, check=True)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    text, rest = process.communicate(timeout=60)
    if process.returncode != 0 or rest:
        raise RuntimeError(f"exit code {process.returncode}: {rest}")
    return text.strip()


def main() -> int:
    """Play, listen, and compare."""
    missing = [name for name in ("pulseaudio", "paplay") if shutil.which(name) is None]
    if missing:
        print(f"mic: there is no {missing[0]!r} on the path", file=sys.stderr)
        return 2
    transcriber = Transcriber.load(None, readable=True)
    expected = transcriber.transcribe(AUDIO).text
    print(f"transcribe: {expected}")
    wrong = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        wav = folder / "speech.wav"
        soundfile.write(wav, *soundfile.read(AUDIO, dtype="int16"))
        environment = os.environ | {
            "XDG_RUNTIME_DIR": name,
            "PULSE_SERVER": f"unix:{name}/pulse/native",
            "PULSE_SINK": "air",
            "PULSE_SOURCE": "air.monitor",
        }
        pulse = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--log-target=null"]
            + ["-L", "module-null-sink sink_name=air", "-L", "module-native-protocol-unix"],
            env=environment,
        )
        server = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", "--store", f"{name}/streams", "--capacity", "4"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            for number, options in enumerate([[], ["--server", address]]):
                saved = folder / f"saved-{number}"
                text = listen(
                    environment, wav, ["--device", "pulse", "--save", str(saved), *options]
                )
                again = transcriber.transcribe(f"{saved}.wav").text
                print(f"mic {' '.join(options[:1])}: {text}")
                wrong += (text != expected) + (again != text)
                wrong += not Path(f"{saved}.srt").read_text().startswith("1\n00:00:0")
        finally:
            for process in (server, pulse):
                process.terminate()
                process.wait()
    print("mic: ok" if not wrong else f"mic: {wrong} things are wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
