"""recipes/generate/keep_voices.py: what training left becomes files of the model."""

import sys

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.models import save_generator
from audiossm.streaming import Speaker
from audiossm.train.talker import VOICES_FILE, Talker
from recipe_run import load_recipe
from tiny_speaker import make_generator
from toy_codec import make_audio_codec, make_codec


def test_chosen_speakers_become_voices(tmp_path, monkeypatch, capsys):
    codec = make_codec()
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    save_generator(tmp_path / "model", "says", make_generator(), make_audio_codec())
    talker = Talker(make_generator().config, 3)
    talker.save_voices(tmp_path, ["p1", "p2", "p3"], torch.tensor([0.1, 0.25, -0.5]))
    argv = ["--model", tmp_path / "model", "--voices", tmp_path / VOICES_FILE]
    argv += ["--origin", "made up", "--licence", "CC0-1.0"]
    recipe = load_recipe("generate", "keep_voices")
    monkeypatch.setattr(sys, "argv", ["keep_voices.py", *map(str, argv), "p2=anna", "p3"])
    assert recipe.main() == 0
    speaker = Speaker.load(tmp_path / "model")
    assert speaker.voices == ["anna", "p3"]
    voice = speaker.voice("anna")
    assert (voice.pace, voice.origin, voice.licence) == (0.25, "made up", "CC0-1.0")
    row = talker.voices.weight[2].detach().half().float()
    assert torch.equal(torch.from_numpy(voice.vector), row)
    monkeypatch.setattr(sys, "argv", ["keep_voices.py", *map(str, argv), "p9"])
    with pytest.raises(SystemExit):
        recipe.main()
    assert "no speaker 'p9'" in capsys.readouterr().err
