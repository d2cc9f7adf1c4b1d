"""Speech in slots: what a session says, many at a time, whatever the neighbours do."""

from dataclasses import replace

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
WARM = Sampling(temperature=0.9, spread=0.8)
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


@pytest.mark.parametrize("sampling", [COLD, WARM], ids=["likeliest", "drawn"])
def test_slots_say_what_sessions_say(sampling):
    slots = make_slots(4, sampling)
    slots.begin([0, 2, 3], [make_script(text, seed) for seed, text in enumerate(TEXTS)])
    slots.busy[1] = False
    found = run_some(slots, [0, 2, 3])
    slots.drain([0, 2, 3])
    rest = run_some(slots, [0, 2, 3])
    for seed, text in enumerate(TEXTS):
        session = SpeechSession(
            SPEAKER, SPEAKER.pronouncer, SPEAKER.voice(None), sampling=sampling, seed=seed
        )
        sounds = [e for e in [*session.push(text), *session.finish()] if isinstance(e, Sound)]
        wanted = np.concatenate([sound.samples for sound in sounds])
        codes, heard = found[seed]
        np.testing.assert_array_equal(codes, np.concatenate([s.codes for s in sounds], axis=1))
        assert (rest[seed][0] == -1).all()
        delay = SPEAKER.codec.network.delay
        heard = np.concatenate([heard, rest[seed][1]])[delay:][: len(wanted)]
        np.testing.assert_allclose(heard, wanted, atol=2e-5)


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
    alone = make_slots(1, WARM)
    alone.begin([0], [make_script(TEXTS[1], seed=5)])
    together = make_slots(3, WARM)
    together.begin([0, 1, 2], [make_script(TEXTS[1], seed) for seed in (4, 5, 5)])
    (lonely,), _ = run(alone)
    other, same, again = run(together)[0]
    np.testing.assert_array_equal(same, lonely)
    np.testing.assert_array_equal(same, again)
    assert other.shape != same.shape or (other != same).any()


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


def test_a_script_that_becomes_known_bit_by_bit_is_said_as_a_whole_one():
    whole = make_script(TEXTS[1], seed=3)
    slots = make_slots(1, WARM)
    slots.begin([0], [whole])
    (wanted,), _ = run(slots)
    before, at, known = SPEAKER.config.units_before, 0, 1

    def cut(known):
        first = min(at, before)
        span = slice(at - first, known)
        return replace(
            whole,
            units=whole.units[span],
            longest=whole.longest[span],
            thresholds=slots._draw_thresholds([whole], len(whole.units))[0].numpy()[span],
            first=first,
            is_whole=known == len(whole.units),
        )

    slots.hush([0])
    slots.begin([0], [cut(known)])
    codes, stalls = [], 0
    for step in range(900):
        said = slots.step()
        if said.sounds[0]:
            codes.append(said.codes[0].numpy().copy())
        if not slots.busy.any():
            break
        if step % 7 == 0 and known < len(whole.units):
            stalls += int(said.unit[0] == slots.num_units[0])
            at, known = at + int(said.unit[0]), min(known + 3, len(whole.units))
            slots.extend([0], [cut(known)])
    assert stalls  # it had to wait
    np.testing.assert_array_equal(np.array(codes).T, wanted)


def test_slots_that_may_not_go_on_wait_as_they_are():
    slots = make_slots(2, WARM)
    slots.begin([0, 1], [make_script(TEXTS[1], seed=3)] * 2)
    codes = [[], []]
    for step in range(900):
        slots.allow(torch.tensor([True, step % 3 == 0]))
        said = slots.step()
        for slot in np.flatnonzero(said.sounds.numpy()):
            codes[slot].append(said.codes[slot].numpy().copy())
        if not slots.busy.any():
            break
    np.testing.assert_array_equal(codes[0], codes[1])


@pytest.mark.parametrize("count", [0, 129])
def test_scripts_that_dont_fit_are_refused(count):
    script = make_script(TEXTS[1])
    rows = np.repeat(script.units[:1], count, axis=0)
    with pytest.raises(ShapeError, match="1 to 128 units"):
        make_slots(1).begin([0], [SlotScript(rows, np.ones(count, np.int64), script.vector)])
