"""Speech in slots: what a session says, many at a time, whatever the neighbours do."""

import numpy as np
import pytest
import torch

from audiossm.decoding.sampling import Sampling
from audiossm.errors import ShapeError
from audiossm.script import ScriptReader
from audiossm.streaming import Sound, SpeechSession
from audiossm.streaming.speech import LONGEST_LEAD, LONGEST_PAUSE, LONGEST_PHONE
from audiossm.streaming.speech_slots import SlotScript, SpeechSlots
from tiny_speaker import make_speaker

SPEAKER = make_speaker()
COLD = Sampling(temperature=0.0, spread=0.0)  # nothing is drawn
TEXTS = ("Birds sing.", "The small house stands, as ever, on a hill.", "No?")


def make_script(text, seed=0):
    reader = ScriptReader(SPEAKER.pronouncer)
    units = reader.push(text).units + reader.finish().units
    longest = [
        LONGEST_LEAD if unit.symbol == "_" else LONGEST_PAUSE if unit.is_pause else LONGEST_PHONE
        for unit in units
    ]
    rows = np.array([SPEAKER.row(unit) for unit in units])
    vector = np.zeros(SPEAKER.config.d_voice, np.float32)
    return SlotScript(rows, np.array(longest), vector, seed=seed)


def make_slots(num_slots, sampling=COLD, max_units=128):
    generator = SPEAKER
    return SpeechSlots(
        generator.network,
        generator.codec.network,
        num_slots=num_slots,
        max_units=max_units,
        sampling=sampling,
    )


def run(slots, steps=900):
    """The codes and samples of each slot until all are silent."""
    codes = [[] for _ in range(slots.num_slots)]
    samples = [[] for _ in range(slots.num_slots)]
    for _ in range(steps):
        said = slots.step()
        for slot in np.flatnonzero(said.sounds.numpy()):
            codes[slot].append(said.codes[slot].numpy().copy())
            samples[slot].append(said.samples[slot].numpy().copy())
        if not slots.busy.any():
            break
    assert not slots.busy.any()
    return [np.array(part).T for part in codes], [np.concatenate(part) for part in samples]


def test_slots_say_what_sessions_say():
    slots = make_slots(4)
    slots.begin([0, 2, 3], [make_script(text) for text in TEXTS[:2]] + [make_script(TEXTS[2])])
    slots.busy[1] = False
    codes, samples = [], []
    for text in TEXTS:
        session = SpeechSession(
            SPEAKER, SPEAKER.pronouncer, SPEAKER.voice(None), sampling=COLD, frames_per_step=1
        )
        sounds = [e for e in [*session.push(text), *session.finish()] if isinstance(e, Sound)]
        codes.append(np.concatenate([sound.codes for sound in sounds], axis=1))
        samples.append(np.concatenate([sound.samples for sound in sounds]))
    found = run_some(slots, [0, 2, 3])
    for (have, heard), wanted, sound in zip(found, codes, samples, strict=True):
        np.testing.assert_array_equal(have, wanted)
        # a session goes on until its decoder is empty
        delay = SPEAKER.codec.network.delay
        np.testing.assert_allclose(heard[delay:], sound[: len(heard) - delay], atol=2e-5)


def run_some(slots, places):
    codes, samples = {slot: [] for slot in places}, {slot: [] for slot in places}
    for _ in range(900):
        said = slots.step()
        assert not said.sounds[1]
        for slot in places:
            if said.sounds[slot]:
                codes[slot].append(said.codes[slot].numpy().copy())
                samples[slot].append(said.samples[slot].numpy().copy())
        if not slots.busy.any():
            break
    return [(np.array(codes[s]).T, np.concatenate(samples[s])) for s in places]


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_neighbours():
    warm = Sampling(temperature=0.9, spread=0.8)
    alone = make_slots(1, warm)
    alone.begin([0], [make_script(TEXTS[1], seed=5)])
    together = make_slots(3, warm)
    together.begin([0, 1, 2], [make_script(TEXTS[1], seed) for seed in (4, 5, 5)])
    (lonely,), _ = run(alone)
    other, same, again = run(together)[0]
    np.testing.assert_array_equal(same, lonely)
    np.testing.assert_array_equal(same, again)
    assert other.shape != same.shape or (other != same).any()


def test_uniform_numbers_are_uniform():
    slots = make_slots(2)
    slots.seed[:] = torch.tensor([1, 2])
    steps = torch.arange(5000).view(1, -1).expand(2, -1)
    drawn = slots._uniform(0, steps, torch.zeros(1, dtype=torch.int64))
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn[0], 10, 0, 1)
    assert (counts - 500).abs().max() < 120
    assert abs(np.corrcoef(drawn.numpy())[0, 1]) < 0.05
    assert abs(np.corrcoef(drawn[0, 1:], drawn[0, :-1])[0, 1]) < 0.05


def test_a_slot_begins_anew_while_others_go_on():
    slots = make_slots(2)
    slots.begin([0, 1], [make_script(TEXTS[0]), make_script(TEXTS[1])])
    for _ in range(12):
        slots.step()
    slots.begin([0], [make_script(TEXTS[0])])
    codes, _ = run(slots)
    fresh = make_slots(1)
    fresh.begin([0], [make_script(TEXTS[0])])
    np.testing.assert_array_equal(codes[0], run(fresh)[0][0])


@pytest.mark.parametrize("count", [0, 129])
def test_scripts_that_dont_fit_are_refused(count):
    script = make_script(TEXTS[1])
    rows = np.repeat(script.units[:1], count, axis=0)
    with pytest.raises(ShapeError, match="1 to 128 units"):
        make_slots(1).begin([0], [SlotScript(rows, np.ones(count, np.int64), script.vector)])
