"""The language model's recipe: from texts to one file that can be read."""

import lzma
import subprocess
import sys
from pathlib import Path

from audiossm.decoding.ngram import NgramModel

TOOL = Path(__file__).parents[2] / "recipes" / "lm" / "make_ngrams.py"


def test_a_language_model_is_made_of_texts_and_manifests(tmp_path):
    text, manifest = tmp_path / "text.txt.xz", tmp_path / "talk.jsonl"
    text.write_bytes(lzma.compress(b"The kettle is on.\nthe kettle is off\n\nonce is once\n"))
    manifest.write_text('{"key": "a", "path": "a.wav", "text": "KETTLE A"}\n', encoding="utf-8")
    out = tmp_path / "lm" / "ngrams.safetensors"
    command = [sys.executable, str(TOOL), str(text), str(manifest), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ngrams = NgramModel(out.read_bytes(), "made")
    # words seen twice, and the letters' names
    assert set(ngrams.lexicon) == {"is", "kettle", "once", "the", *"abcdefghijklmnopqrstuvwxyz"}
    assert ngrams.order == 4
    assert "4 sentences" in done.stdout and "unknown words" in done.stdout
