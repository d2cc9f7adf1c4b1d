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
from audiossm.models import RecogniserConfig, RecogniserState
from audiossm.nn import map_state, named_tensors
from audiossm.streaming import Token
from audiossm.train.corpus import Corpus
from audiossm.train.lessons import Lessons
from audiossm.train.phones import Phones, read_phones
from audiossm.train.scoring import greedy_wer
from audiossm.train.trainee import Trainee, draw_sample
from tiny_model import make_transcriber, read_speech

TINY = RecogniserConfig.tiny()
LATE = max(TINY.lookahead_frames)


def test_letters_and_phones_stand_in_time_with_the_audio_at_every_lookahead():
    trainee = Trainee(TINY).eval().requires_grad_(False)
    net, frames = trainee.recogniser, 12
    audio = torch.randn(1, frames * TINY.frame_size) * 0.1
    padded = torch.nn.functional.pad(audio, (0, LATE * TINY.frame_size))
    spectra = net.encoder.stft(padded).repeat(3, 1, 1)
    letters, phones, _ = trainee(spectra, torch.tensor([0, 1, 2]), net.init_state(3))
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


def test_rows_go_on_from_states_whatever_look_ahead_those_had():
    trainee = Trainee(TINY)
    net = trainee.recogniser
    spectra = net.encoder.stft(torch.randn(2, (LATE + 6) * TINY.frame_size) * 0.1)
    option = torch.tensor([2, 0])
    _, _, state = trainee(spectra, option.flip(0), net.init_state(2))
    assert not any(tensor.requires_grad for _, tensor in named_tensors(state))
    letters, _, after = trainee(spectra, option, state)
    assert torch.equal(after.lookahead.option, option)
    assert not torch.allclose(letters, trainee(spectra, option, net.init_state(2))[0], atol=1e-3)
    state = state._replace(lookahead=state.lookahead._replace(option=option))
    encoded, _ = net.encoder.step_spectra(spectra, state.encoder)
    hidden, _, _ = net.step_encoded(encoded, state)
    expected = net.log_probs(hidden)[0, LATE * TINY.stack :]
    torch.testing.assert_close(letters[0], expected, rtol=1e-4, atol=1e-4)


def test_what_a_graph_reads_lies_apart():
    """A CUDA graph is played here by the sample itself: inputs are copied to where it lies."""
    trainee = Trainee(TINY).eval().requires_grad_(False)
    net = trainee.recogniser
    sample = draw_sample(trainee, 2, 6 * TINY.frame_size)
    spectra = torch.randn_like(sample[0])
    begun = map_state(lambda x: torch.rand(x.shape).to(x.dtype), net.init_state(2))
    begun = begun._replace(lookahead=begun.lookahead._replace(option=torch.tensor([1, 2])))
    inputs = (spectra, torch.tensor([2, 0]), begun, torch.tensor([-1, 0]))
    expected = trainee(*inputs)
    for static, given in zip(tensors(sample), tensors(inputs), strict=True):
        static.copy_(given)
    for (name, played), (_, right) in zip(
        named_tensors(trainee(*sample)), named_tensors(expected), strict=True
    ):
        assert torch.equal(played, right), name


def tensors(inputs):
    return [tensor for _, tensor in named_tensors(inputs)]


def make_lessons(share: float) -> Lessons:
    data = {"row_s": 4.0, "rows": 4, "speeds": [1.0], "synthetic_share": 0.0}
    hp = {"seed": 0, "warmup": 1, "phone_weight": 0.0, "consistency_weight": 0.1, "augment": 0.0}
    hp |= {
        "grammar_weight": 0.0,
        "transducer_weight": 0.0,
        "consistency_from": 1,
        "masks": 0.0,
        "warp": 0.0,
        "lookahead_shares": [1.0, 1.0, 1.0],
    }
    corpus = dataclasses.replace(make_corpus(["a"] * 3), labels=([[1]] * 3,), joints=([],))
    corpus = dataclasses.replace(
        corpus,
        starts=corpus.starts.repeat(8),
        sizes=corpus.sizes.repeat(8),
        labels=([[1]] * 24,),
        texts=["a"] * 24,
        sources=[""] * 24,
    )
    trainee = Trainee(dataclasses.replace(TINY, phones=()))
    return Lessons(
        trainee, [corpus], None, data, hp | {"carried_share": share}, step=0, captured=False
    )


def begin(lessons: Lessons, views: int) -> RecogniserState:
    return lessons.trainee.begin(lessons.ended, lessons.draw_origins(views))


def test_rows_begin_with_what_rows_before_ended_with_and_both_views_alike():
    lessons = make_lessons(0.5)
    assert not any(t.any() for _, t in named_tensors(lessons.ended.upper))
    lessons.next_loss()
    begun = [begin(lessons, 2).upper[0].ssm for _ in range(20)]
    assert all(torch.equal(a, b) for a, b in (state.chunk(2) for state in begun))
    fresh = [not state[0].any() for state in begun]
    assert 2 <= sum(fresh) <= 18
    ended = lessons.ended.upper[0].ssm[0]
    assert all(new or torch.equal(state[0], ended) for new, state in zip(fresh, begun, strict=True))
    again = make_lessons(0.5)
    again.load_state_dict(lessons.state_dict())
    for (name, a), (_, b) in zip(
        named_tensors(again.ended), named_tensors(lessons.ended), strict=True
    ):
        assert torch.equal(a, b), name


def test_without_a_share_all_rows_begin_anew():
    lessons = make_lessons(0.0)
    lessons.next_loss()
    assert not any(t.any() for _, t in named_tensors(begin(lessons, 1).upper))


def test_a_network_without_a_phone_head_gives_letters_alone():
    trainee = Trainee(dataclasses.replace(TINY, phones=())).eval()
    net = trainee.recogniser
    spectra = net.encoder.stft(torch.zeros(1, (LATE + 2) * TINY.frame_size))
    letters, phones, _ = trainee(spectra, torch.tensor([0]), net.init_state(1))
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
    longer = Trainee(dataclasses.replace(TINY, conv_kernel=5))
    longer.begin_from(str(tmp_path / "old"))
    bare = Trainee(dataclasses.replace(TINY, conv_kernel=0))
    bare.begin_from(str(tmp_path / "old"))
    x = torch.randn(1, 4 * TINY.frame_size) * 0.1
    assert torch.equal(longer.recogniser.eval()(x), bare.recogniser.eval()(x))
    larger = Trainee(dataclasses.replace(TINY, stack=4))
    with pytest.raises(ConfigError, match=r"old' has other sizes: stack is 2 \(here 4\)$"):
        larger.begin_from(str(tmp_path / "old"))


def make_corpus(texts: list[str]) -> Corpus:
    """The same stretches of speech as items, with any transcripts."""
    audio = (torch.from_numpy(read_speech().copy()) * 32767).to(torch.int16)
    sizes = torch.tensor([16000, 9000, 12345]).numpy()
    starts = sizes.cumsum() - sizes
    return Corpus(audio, starts, sizes, ([[]] * 3,), ([],), texts, [""] * 3)


def test_the_word_error_rate_is_that_of_sessions_without_silence_after_them(monkeypatch):
    model = make_transcriber()
    monkeypatch.setattr(type(model), "tail_frames", 0)
    # scoring takes apostrophes off the edges of words, sessions don't
    model.network.head.bias.view(TINY.stack, -1)[:, TINY.pieces.index("'")] = -100.0
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
