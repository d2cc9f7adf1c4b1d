"""The recogniser in training hears what it will hear in a stream."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import ConfigError, ManifestError
from audiossm.manifest import Utterance
from audiossm.models import RecogniserConfig
from audiossm.streaming import Token
from audiossm.train.corpus import Corpus
from audiossm.train.phones import Phones, read_phones
from audiossm.train.scoring import greedy_wer
from audiossm.train.trainee import Trainee
from tiny_model import make_transcriber, read_speech

TINY = RecogniserConfig.tiny()
LATE = max(TINY.lookahead_frames)


def test_letters_and_phones_stand_in_time_with_the_audio_at_every_lookahead():
    trainee = Trainee(TINY).eval().requires_grad_(False)
    net, frames = trainee.recogniser, 12
    audio = torch.randn(1, frames * TINY.frame_size) * 0.1
    padded = torch.nn.functional.pad(audio, (0, LATE * TINY.frame_size))
    spectra = net.encoder.stft(padded).repeat(3, 1, 1)
    letters, phones = trainee(spectra, torch.tensor([0, 1, 2]))
    assert letters.shape == (3, frames * TINY.stack, len(TINY.pieces))
    assert phones.shape == (3, frames * TINY.stack, len(TINY.phones) + 1)
    torch.testing.assert_close(phones.exp().sum(-1), torch.ones(3, frames * TINY.stack))
    for row, right in enumerate(TINY.lookahead_frames):
        state = net.init_state(1, right)
        encoded, _ = net.encoder.step(padded, state.encoder)
        hidden, spoken, _ = net.step_encoded(encoded, state)
        late = slice(right * TINY.stack, (right + frames) * TINY.stack)
        expected = net.log_probs(hidden)[0, late]
        torch.testing.assert_close(letters[row], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(phones[row], spoken[0, late], rtol=1e-4, atol=1e-4)


def test_a_network_without_a_phone_head_gives_letters_alone():
    trainee = Trainee(dataclasses.replace(TINY, phones=())).eval()
    spectra = trainee.recogniser.encoder.stft(torch.zeros(1, (LATE + 2) * TINY.frame_size))
    letters, phones = trainee(spectra, torch.tensor([0]))
    assert letters.shape[1] == 2 * TINY.stack
    assert phones is None


def test_a_run_begins_from_another_models_weights(tmp_path):
    network = make_transcriber().network
    save_model(
        tmp_path / "old", "recogniser", "", {"recogniser": to_dict(TINY)}, network.state_dict()
    )
    same = Trainee(TINY)
    same.begin_from(str(tmp_path / "old"))
    for name, weight in same.recogniser.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name].half().float()), name
    other = Trainee(dataclasses.replace(TINY, phones=("x",)))
    head = other.recogniser.phones.head.weight.clone()
    other.begin_from(str(tmp_path / "old"))
    assert torch.equal(other.recogniser.phones.head.weight, head)
    assert torch.equal(other.recogniser.in_proj.weight, same.recogniser.in_proj.weight)
    larger = Trainee(dataclasses.replace(TINY, stack=4))
    with pytest.raises(ConfigError, match="but this one is"):
        larger.begin_from(str(tmp_path / "old"))


def make_corpus(texts: list[str]) -> Corpus:
    """The same stretches of speech as items, with any transcripts."""
    audio = (torch.from_numpy(read_speech().copy()) * 32767).to(torch.int16)
    sizes = torch.tensor([16000, 9000, 12345]).numpy()
    starts = sizes.cumsum() - sizes
    return Corpus(audio, starts, sizes, ([[]] * 3,), ([],), texts, [""] * 3)


def test_the_word_error_rate_is_that_of_sessions():
    model = make_transcriber()
    silent = make_corpus(["", "", ""])
    said = []
    for item in range(3):
        session = model.session()
        samples = silent.cut(item).numpy().astype("float32") / 32768
        events = session.push(samples) + session.finish()
        pieces = "".join(e.piece for e in events if isinstance(e, Token))
        said.append(pieces.replace("▁", " ").strip())
    count = sum(len(text.split()) for text in said)
    assert count > 10
    assert greedy_wer(model.network, make_corpus(said), rows=2) == 0.0
    longer = [f"{said[0]} more words", said[1], said[2]]
    assert greedy_wer(model.network, make_corpus(longer)) == pytest.approx(2 / (count + 2))


def test_scoring_leaves_the_mode_of_the_network_alone():
    network = Trainee(TINY).recogniser
    for training in (True, False):
        network.train(training)
        greedy_wer(network, make_corpus(["a", "b", "c"]))
        assert network.training is training


def test_phones_are_read_and_count_from_one(tmp_path: Path):
    path = tmp_path / "phones.json"
    path.write_text(json.dumps({"symbols": ["x", "y"], "phones": {"k": ["y", "x", "y"]}}))
    phones = read_phones(path)
    assert phones.symbols == ("x", "y")
    assert phones.label(Utterance(key="k", text="")) == [2, 1, 2]
    assert Phones((), {}).label(Utterance(key="k", text="")) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"symbols": ["x"], "phones": {"k": ["z"]}}', '{"symbols": 5, "phones": {}}'],
)
def test_what_is_no_file_of_phones_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "phones.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=r"phones\.json: not a file of phones"):
        read_phones(path)


def test_random_seeds_decide_a_batch():
    corpus = make_corpus(["a", "b", "c"])
    first, again = (corpus.batch([[0, 1]], 60000, random.Random(5)) for _ in range(2))
    assert torch.equal(first.audio, again.audio)


def test_an_utterance_without_phones_is_refused_where_others_have_them():
    phones = Phones(("a",), {"k": [1]})
    assert phones.label(Utterance(key="k", text="a")) == [1]
    with pytest.raises(ManifestError, match="no phones of 'other'"):
        phones.label(Utterance(key="other", text="a"))
