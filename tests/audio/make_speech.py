"""Make the synthetic speech that the tests and the README use.

From the root of the project, with espeak-ng, flite, festival and its voices installed (Debian and
Ubuntu: apt-get install espeak-ng flite festival festvox-us-slt-hts festvox-kdlpc16k):

    python tests/audio/make_speech.py

It writes tests/speech/ (the clips and manifest.jsonl) and assets/audio/first-light.flac again.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from audiossm.audio import mix, open_audio, resample, write_audio  # noqa: E402  # needs ROOT

PEAK = 0.7


@dataclass(frozen=True)
class Clip:
    """One sentence, who says it and how it is stored."""

    path: str
    synthesiser: str
    voice: str
    text: str
    sample_rate: int = 16000
    channels: int = 1


CLIPS = [
    Clip(
        "tests/speech/river.flac",
        "flite",
        "slt",
        "The river was high after a week of rain, so we walked home over the old stone bridge.",
    ),
    Clip(
        "tests/speech/bread.flac",
        "flite",
        "rms",
        "Please buy two loaves of bread and a bottle of milk on your way back.",
    ),
    Clip(
        "tests/speech/station.flac",
        "flite",
        "awb",
        "The next train to the coast leaves from platform nine in ten minutes.",
    ),
    Clip(
        "tests/speech/garden.flac",
        "flite",
        "kal16",
        "My neighbour grows tomatoes and beans in a small garden.",
    ),
    Clip(
        "tests/speech/letter.flac",
        "festival",
        "cmu_us_slt_arctic_hts",
        "She wrote a long letter to her brother, but she never sent it.",
    ),
    Clip(
        "tests/speech/winter.flac",
        "festival",
        "ked_diphone",
        "In winter the lake freezes and the children skate until dark.",
    ),
    Clip(
        "tests/speech/kettle.flac",
        "espeak-ng",
        "en-us",
        "Put the kettle on, and I will tell you what happened today.",
    ),
    Clip(
        "tests/speech/museum.flac",
        "espeak-ng",
        "en-gb",
        "The museum is closed on Mondays, but the shop stays open.",
    ),
    Clip(
        "tests/speech/stereo-44100.flac",
        "festival",
        "cmu_us_slt_arctic_hts",
        "This recording has two channels, and one of them is quieter.",
        sample_rate=44100,
        channels=2,
    ),
    Clip(
        "tests/speech/telephone-8000.flac",
        "flite",
        "rms",
        "Hello, I am calling about the bicycle that you want to sell.",
        sample_rate=8000,
    ),
    Clip(
        "assets/audio/first-light.flac",
        "festival",
        "cmu_us_slt_arctic_hts",
        "The first light of morning came over the hills. "
        "One by one the birds began to sing, and the town woke up.",
    ),
]


def synthesise(clip: Clip, wav: Path) -> None:
    """Say the text of ``clip`` into a WAV file."""
    if clip.synthesiser == "flite":
        command = ["flite", "-voice", clip.voice, "-t", clip.text, "-o", str(wav)]
    elif clip.synthesiser == "espeak-ng":
        command = ["espeak-ng", "-v", clip.voice, "-s", "150", "-w", str(wav), clip.text]
    else:
        command = ["text2wave", "-eval", f"(voice_{clip.voice})", "-o", str(wav)]
    subprocess.run(command, input=clip.text.encode(), check=True, stderr=subprocess.DEVNULL)


def make_clip(clip: Clip, folder: Path) -> dict[str, object]:
    """Write one clip and return its line of the manifest."""
    wav = folder / "said.wav"
    synthesise(clip, wav)
    with open_audio(wav) as reader:
        said = mix(np.concatenate(list(reader.blocks(reader.sample_rate)), axis=1))
        rate = reader.sample_rate
    audio = resample(torch.from_numpy(said)[None], rate, clip.sample_rate).numpy()
    audio *= PEAK / np.abs(audio).max()
    if clip.channels == 2:
        audio = np.concatenate([audio, 0.5 * audio])
    write_audio(ROOT / clip.path, audio, clip.sample_rate)
    return {
        "key": Path(clip.path).stem,
        "path": Path(clip.path).name,
        "text": clip.text,
        "speaker": f"{clip.synthesiser}:{clip.voice}",
        "seconds": round(audio.shape[1] / clip.sample_rate, 3),
        "source": "synthetic",
        "lang": "en",
    }


def main() -> None:
    """Make every clip and the manifest of those in tests/speech."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in CLIPS:
            line = make_clip(clip, Path(folder))
            print(f"{clip.path}: {line['seconds']} s")
            if clip.path.startswith("tests/speech/"):
                lines.append(json.dumps(line))
    (ROOT / "tests/speech/manifest.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
