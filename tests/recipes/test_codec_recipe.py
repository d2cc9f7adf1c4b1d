"""The recipe of the codec runs, learns, resumes exactly, and leaves a codec that works."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from audiossm.codec import LoadedCodec
from audiossm.models import LoadedRecogniser, save_recogniser
from audiossm.train.corpus import Corpus
from recipe_run import RECIPES, StepClock, label_speech, load_recipe
from tiny_model import make_transcriber, read_speech

MODEL_FILES = ("config.toml", "model.safetensors")


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("codec")


@pytest.fixture
def labelled_data(tmp_path: Path) -> Path:
    return label_speech(tmp_path / "data")


def train(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> None:
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    torch.manual_seed(random.randrange(1000))  # what was before the run must not matter
    recipe.main()


def test_the_smoke_run_learns_and_exports_a_codec_that_decodes(tmp_path):
    command = [sys.executable, RECIPES / "codec" / "train.py", "--smoke", "--out", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--workers", "1"], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "step 40 of 40, {'dev_mel_1': " in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30, 35, 40]
    mels = [row["mel"] for row in rows]
    assert mels[-1] < 0.75 * mels[0]
    assert rows[7]["dev_mel_4"] < 0.95 * rows[3]["dev_mel_4"]
    loaded = LoadedCodec.load(tmp_path / "codec")
    samples = torch.from_numpy(read_speech()[: 50 * 320].copy()).unsqueeze(0)
    codes = loaded.network.encode(samples)
    assert codes.shape == (1, 4, 50)
    heard = loaded.network.decode(codes[:, :2])
    assert heard.shape == samples.shape and heard.isfinite().all()
    sample, rate = soundfile.read(tmp_path / "sample.wav")
    assert rate == 16000 and len(sample) == 2 * 64000


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe, labelled_data):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 6, "log_every": 2})
    half = {"long_share": 0.5, "long_s": 5.12, "sounds": ["manifest"]}
    monkeypatch.setattr(recipe, "SMOKE_DATA", recipe.SMOKE_DATA | half)
    data = ["--data", str(labelled_data)]
    train(recipe, monkeypatch, tmp_path / "straight", *data)
    log = (tmp_path / "straight" / "log.jsonl").read_text()
    assert "phone" in log and '"norm"' in log
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=3)
        train(recipe, monkeypatch, tmp_path / "stopped", *data, "--minutes", "5")
    early = (tmp_path / "stopped" / "codec" / "model.safetensors").read_bytes()
    saved = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    train(recipe, monkeypatch, tmp_path / "stopped", *data)
    for name in MODEL_FILES:
        straight = (tmp_path / "straight" / "codec" / name).read_bytes()
        assert (tmp_path / "stopped" / "codec" / name).read_bytes() == straight, name
        assert early != straight


def test_a_run_begins_from_the_model_it_is_given(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 2})
    train(recipe, monkeypatch, tmp_path / "first")
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 0, "seed": 5})
    train(recipe, monkeypatch, tmp_path / "second", "--init", str(tmp_path / "first" / "codec"))
    first, second = (LoadedCodec.load(tmp_path / name / "codec") for name in ("first", "second"))
    assert first.hash == second.hash


def test_a_recogniser_learns_beside_the_codec_on_one_encoder(
    tmp_path, monkeypatch, recipe, labelled_data
):
    network = make_transcriber().network
    save_recogniser(tmp_path / "ears", "", network)
    small = {"steps": 4, "log_every": 2, "dev_every": 4}
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | small)
    options = ["--data", str(labelled_data), "--recogniser", str(tmp_path / "ears")]
    path = labelled_data / "phones.json"
    path.write_text(path.read_text().replace('"phones": {', '"phones": {"river": [], '))
    train(recipe, monkeypatch, tmp_path / "straight", *options)
    rows = [json.loads(r) for r in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()]
    assert {"mel", "magnitude", "ctc", "phone"} <= rows[0].keys() and "dev_wer" in rows[1]
    codec = LoadedCodec.load(tmp_path / "straight" / "codec")
    model = LoadedRecogniser.load(tmp_path / "straight" / "recogniser")
    for name, weight in model.network.encoder.state_dict().items():
        assert torch.equal(weight, codec.network.encoder.state_dict()[name]), name
    moved = codec.network.encoder.in_proj.weight - network.encoder.in_proj.weight
    assert moved.abs().max() > 1e-4
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=2)
        train(recipe, monkeypatch, tmp_path / "stopped", *options, "--minutes", "5")
    train(recipe, monkeypatch, tmp_path / "stopped", *options)
    for part in ("codec", "recogniser"):
        straight = (tmp_path / "straight" / part / "model.safetensors").read_bytes()
        assert (tmp_path / "stopped" / part / "model.safetensors").read_bytes() == straight


def make_corpus(phones: bool) -> Corpus:
    lengths = np.array([300, 200, 500])
    return Corpus(
        audio=torch.arange(1, 1001, dtype=torch.int16),
        starts=np.cumsum(lengths) - lengths,
        sizes=lengths,
        labels=([[1], [2], [3]] if phones else [[], [], []],),
        joints=([],),
        texts=[""] * 3,
        sources=[""] * 3,
    )


@pytest.mark.parametrize("phones", [False, True])
def test_a_batch_is_a_function_of_its_step(recipe, phones):
    data = {"crop_rows": 4, "crop_s": 0.01, "long_share": 0.25, "long_rows": 2, "long_s": 0.02}
    corpus = make_corpus(phones)
    batches = [recipe.draw_batch(corpus, data, phones, 3, step) for step in range(200)]
    long = [len(batch.audio) == 2 for batch in batches]
    assert 30 < sum(long) < 70
    assert {batch.audio.shape for batch in batches} == {(4, 160), (2, 320)}
    # labels come with whole utterances only, and only if there are any
    assert [bool(batch.labels) for batch in batches] == [phones and is_long for is_long in long]
    for step in (0, 57, 199):
        again = recipe.draw_batch(corpus, data, phones, 3, step)
        assert torch.equal(again.audio, batches[step].audio)
        assert again.labels == batches[step].labels
    other = recipe.draw_batch(corpus, data, phones, 4, 0)
    assert other.audio.shape != batches[0].audio.shape or not torch.equal(
        other.audio, batches[0].audio
    )


def test_the_target_has_no_holes_and_is_in_time(recipe, monkeypatch):
    """The loss compares the late output with the signal itself, after the first frames."""
    trainee = recipe.CodecTrainee(recipe.CodecConfig.tiny(), 0)
    audio = torch.from_numpy(read_speech()[16000:28800].copy()).view(2, -1)
    batch = recipe.Batch(audio, torch.tensor([6400, 6400]), ())
    hp = {"noise_share": 0.0, "masked_share": 1.0, "masks": 1.0, "skip_frames": 4}
    hp |= {"mel_weight": 15.0, "magnitude_weight": 1.0}
    monkeypatch.setattr(recipe, "vary", lambda audio, *rest: audio)
    seen = []

    def model(spectra, num_groups):
        seen.append(spectra)
        late = torch.nn.functional.pad(audio, (240, 0))[:, : audio.shape[1]]
        # what the first frames sound like doesn't matter
        late = torch.cat([torch.rand(2, 1520), late[:, 1520:]], dim=1).requires_grad_()
        return late, torch.zeros(2, 20, 4)

    loss, parts = recipe.train_step(model, trainee, recipe.SpectralLoss(16000), batch, None, hp)
    assert loss.item() == 0 and parts.keys() == {"mel", "magnitude"}
    whole = trainee.codec.encoder.stft(audio)
    assert (seen[0] == 0).float().mean() > (whole == 0).float().mean() + 0.02
