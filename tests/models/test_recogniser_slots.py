"""A recogniser in slots: each stream gets what the recogniser itself says, whoever is with it."""

import copy

import pytest
import torch
from torch import Tensor

from audiossm.errors import ConfigError, ShapeError
from audiossm.models import Recogniser
from audiossm.models.recogniser_slots import RecogniserSlots
from audiossm.nn import named_tensors
from tiny_model import make_transcriber, read_speech

NETWORK = make_transcriber().network
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CARD = copy.deepcopy(NETWORK).to(DEVICE)
FRAME = NETWORK.config.frame_size
STACK = NETWORK.config.stack
SPEECH = torch.from_numpy(read_speech()[: 24 * FRAME].copy()).view(24, FRAME)


@torch.no_grad()
def run_alone(network: Recogniser, frames: Tensor, right: int) -> tuple[Tensor, Tensor]:
    log_probs, _ = network.step(frames.reshape(1, -1), network.init_state(1, right))
    scores, labels = log_probs[0].max(-1)
    return labels.view(-1, STACK), scores.view(-1, STACK)


def step(slots: RecogniserSlots, which: list[int], frames: Tensor) -> tuple[Tensor, ...]:
    return slots.step(torch.tensor(which), frames).read()


def collapse(labels: Tensor, right: int) -> Tensor:
    """Which label frames hold a new piece, by the definition of it."""
    fresh, previous = [], 0
    for frame, label in enumerate(labels.flatten().tolist(), -right * STACK):
        fresh.append(label != 0 and label != previous)
        previous = label if frame >= 0 else 0
    return torch.tensor(fresh).view(-1, STACK)


def test_streams_that_come_and_rest_get_what_they_would_alone():
    slots = RecogniserSlots(CARD, 5)
    rights = [0, 8, 4]
    places = [4, 0, 2]
    audio = [SPEECH, SPEECH.flip(0), -0.5 * SPEECH]
    expected = [run_alone(NETWORK, *pair) for pair in zip(audio, rights, strict=True)]
    assert all(labels.unique().numel() > 3 for labels, _ in expected)
    for place, right in zip(places, rights, strict=True):
        slots.begin([place], right)
    at = [0, 0, 0]
    for tick in range(40):
        who = [i for i in range(3) if (tick + i) % (i + 1) == 0 and at[i] < len(SPEECH)]
        if not who:
            continue
        frames = torch.stack([audio[i][at[i]] for i in who])
        labels, scores, fresh = step(slots, [places[i] for i in who], frames)
        for row, i in enumerate(who):
            assert torch.equal(labels[row], expected[i][0][at[i]])
            torch.testing.assert_close(scores[row], expected[i][1][at[i]], rtol=1e-3, atol=1e-4)
            assert torch.equal(fresh[row], collapse(expected[i][0], rights[i])[at[i]])
            at[i] += 1
    assert at == [24, 20, 13]


def test_all_that_the_network_says_is_told_phones_too():
    slots = RecogniserSlots(CARD, 3)
    slots.begin([0, 2], 4)
    with torch.no_grad():
        letters, phones, _ = NETWORK.hear(SPEECH.reshape(1, -1), NETWORK.init_state(1, 4))
    expected = torch.cat([letters, phones], dim=-1)[0].view(len(SPEECH), STACK, -1)
    assert expected.shape[-1] == len(NETWORK.config.pieces) + len(NETWORK.config.phones) + 1
    for frame, wanted in zip(SPEECH, expected, strict=True):
        labels = slots.step(torch.tensor([2, 0]), torch.stack([frame, 0 * frame]), log_probs=True)
        torch.testing.assert_close(labels.log_probs()[0], wanted, rtol=1e-3, atol=1e-3)


def test_a_state_is_the_networks_own_and_moves():
    slots = RecogniserSlots(CARD, 3)
    slots.begin([1], 8)
    for frame in SPEECH[:7]:
        step(slots, [1], frame.unsqueeze(0))
    with torch.no_grad():
        _, expected = NETWORK.step(SPEECH[:7].reshape(1, -1), NETWORK.init_state(1, 8))
    taken = slots.read(1)
    turned = NETWORK.turn_back(taken.network)
    for (name, part), (_, other) in zip(
        named_tensors(turned), named_tensors(expected), strict=True
    ):
        assert part.shape == other.shape and part.dtype == other.dtype, name
        torch.testing.assert_close(part, other, rtol=1e-3, atol=1e-4, msg=name)
    assert taken.frame == -8 * STACK + 7 * STACK
    # a state that a session left goes on in a slot
    slots.write([2], expected, taken.previous, taken.frame)
    a, _, _ = step(slots, [1], SPEECH[7:8])
    b, scores, _ = step(slots, [2], SPEECH[7:8])
    labels, best = run_alone(NETWORK, SPEECH, 8)
    assert torch.equal(a, b) and torch.equal(b[0], labels[7])
    torch.testing.assert_close(scores[0], best[7], rtol=1e-3, atol=1e-4)


def test_batch_mates_and_places_change_no_bit():
    noise = torch.randn(8, FRAME) * 0.1

    def run(place: int, row: int, mates: Tensor) -> list[Tensor]:
        slots = RecogniserSlots(CARD, 8)
        slots.begin(list(range(8)))
        others = [slot for slot in range(8) if slot != place]
        who = [*others[:row], place, *others[row:]][:7]
        found = []
        for frame in SPEECH[:6]:
            frames = mates[: len(who)].clone()
            frames[row] = frame
            labels, scores, _ = step(slots, who, frames)
            found += [labels[row], scores[row]]
        return [*found, *(part for _, part in named_tensors(slots.read(place).network))]

    first = run(0, 3, noise)
    for place, row, mates in ((0, 3, 3 * noise), (6, 3, noise), (2, 3, torch.zeros(8, FRAME))):
        assert all(map(torch.equal, first, run(place, row, mates)))
    # another row may be summed in another order
    for a, b in zip(first, run(5, 6, noise), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_spoiled_stream_is_told_and_spoils_nobody():
    slots = RecogniserSlots(CARD, 3)
    slots.begin([0, 1, 2])
    for frame in SPEECH[:2]:
        step(slots, [0, 1, 2], frame.expand(3, -1))
    slots.state.lower[0].ssm[1, 0, 0, 0] = torch.nan
    labels, scores, fresh = step(slots, [0, 1, 2], SPEECH[2].expand(3, -1))
    assert (labels[1] == -1).all() and not fresh[1].any()
    assert (labels[[0, 2]] >= 0).all() and scores[[0, 2]].isfinite().all()
    assert torch.equal(labels[0], labels[2])
    for slot in (0, 2):
        assert all(bool(part.isfinite().all()) for _, part in named_tensors(slots.read(slot)[0]))
    # whoever has the slot next has a clean one
    slots.begin([1])
    again, _, _ = step(slots, [1], SPEECH[:1])
    assert (again >= 0).all()


def test_slots_that_rest_stay_bit_by_bit():
    slots = RecogniserSlots(CARD, 4)
    slots.begin([0, 1, 2, 3])
    step(slots, [0, 1, 2, 3], SPEECH[:4])
    before = slots.read(2)
    for frame in SPEECH[4:8]:
        step(slots, [3, 0, 1], frame.expand(3, -1))
    after = slots.read(2)
    assert after[1:] == before[1:]
    for (name, old), (_, new) in zip(
        named_tensors(before.network), named_tensors(after.network), strict=True
    ):
        assert torch.equal(old, new), name


def test_layers_and_states_of_half_the_memory_say_nearly_the_same():
    whole, half = (
        RecogniserSlots(CARD, 1, state_dtype=dtype, layer_dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.state.upper[0].ssm.dtype == torch.bfloat16
    assert half.state.upper[0].angle.dtype == torch.float32
    assert CARD.layers[0].mlp.fc1.weight.dtype == torch.float32
    assert half.state_bytes < whole.state_bytes
    agree = 0
    for slots in (whole, half):
        slots.begin([0])
    for frame in SPEECH:
        a, _, _ = step(whole, [0], frame.unsqueeze(0))
        b, _, _ = step(half, [0], frame.unsqueeze(0))
        agree += int((a == b).sum())
    assert agree >= 0.8 * STACK * len(SPEECH)


def test_audio_waits_in_a_ring():
    slots = RecogniserSlots(CARD, 2, buffer_frames=2)
    slots.begin([0, 1], 0)
    who, at = torch.tensor([1, 0]), torch.tensor([FRAME // 2, 2 * FRAME - 3])
    slots.put(who, at, SPEECH[:2, :100])
    ring = slots.read_audio(0)
    assert torch.equal(torch.cat([ring[-3:], ring[:97]]), SPEECH[1, :100])
    assert torch.equal(slots.read_audio(1)[FRAME // 2 : FRAME // 2 + 100], SPEECH[0, :100])
    slots.put(torch.tensor([1]), torch.tensor([FRAME]), SPEECH[:1])
    slots.begin([0, 1], 0)
    labels, scores, _ = slots.take(torch.tensor([1, 0]), torch.tensor([1, -1])).read()
    expected = RecogniserSlots(CARD, 2)
    expected.begin([0, 1], 0)
    silent = torch.stack([SPEECH[0], torch.zeros(FRAME)])
    assert torch.equal(labels, step(expected, [1, 0], silent)[0])


def test_buckets_grow_by_a_quarter_at_most():
    slots = RecogniserSlots(CARD, 1500)
    assert [slots.bucket(n) for n in (1, 3, 200, 257, 321, 1024, 1025, 1300, 1500)] == [
        1, 4, 256, 320, 384, 1024, 1280, 1500, 1500,
    ]  # fmt: skip
    assert slots.buckets() == [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1500,
    ]  # fmt: skip


def test_what_makes_no_slots_or_no_step_is_refused():
    with pytest.raises(ConfigError, match="0 slots, 0 rows and 1 buffer_frames"):
        RecogniserSlots(CARD, 0)
    with pytest.raises(ConfigError, match=r"call eval\(\) first"):
        RecogniserSlots(Recogniser(NETWORK.config), 1)
    slots = RecogniserSlots(CARD, 3, max_rows=2)
    for count in (0, 3):
        with pytest.raises(ShapeError, match="a step takes 1 to 2 slots"):
            slots.step(torch.arange(count), torch.zeros(count, FRAME))
    with pytest.raises(ShapeError, match=f"a step takes .1, {FRAME}. samples"):
        slots.step(torch.arange(1), torch.zeros(1, FRAME - 1))
    with pytest.raises(ShapeError, match=f"rings take .1, 0 to {FRAME}. samples"):
        slots.put(torch.arange(1), torch.arange(1), torch.zeros(1, FRAME + 1))
