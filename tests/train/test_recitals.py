"""What a generator learns from: rows of one speaker, written out frame by frame."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from audiossm.manifest import Utterance
from audiossm.models.generator import GeneratorConfig
from audiossm.train.recitals import UNTOLD, Recitals
from audiossm.train.takes import Take, match_takes, take_untold, usual_frames
from audiossm.train.timed_scripts import TimedScript
from audiossm.units import Unit

CONFIG = GeneratorConfig.tiny()
SYMBOLS = CONFIG.symbols.split()
DATA = {"rows": 5, "row_frames": 40, "untold_share": 0.0, "nobody_share": 0.0, "dev_batches": 2}
DATA |= {"untold_nobody_share": 0.0, "people_meet": False}
NONE = CONFIG.num_codes


def make_take(key: str, speaker: str, rng: np.random.Generator, num_phones: int = 6) -> Take:
    units = [Unit("_", 0, 0, 0)]
    for at in range(num_phones):
        symbol = SYMBOLS[rng.integers(4, len(SYMBOLS))]
        units.append(Unit(symbol, int(rng.integers(3)), int(rng.integers(4)), at))
    units.append(Unit(".", 0, 0, num_phones - 1))
    frames = tuple(int(count) for count in rng.integers(1, 6, len(units)))
    codes = rng.integers(0, NONE, (sum(frames), 4)).astype(np.int16)
    return Take(
        Utterance(key=key, text="", speaker=speaker), TimedScript(key, tuple(units), frames), codes
    )


def make_takes(count: int = 12, seed: int = 0) -> list[Take]:
    rng = np.random.default_rng(seed)
    return [
        make_take(f"take-{i}", "ab"[i % 2], rng, int(rng.integers(2, 25))) for i in range(count)
    ]


def make_recitals(takes: list[Take], **changes: float) -> Recitals:
    return Recitals(CONFIG, takes, ["a"], usual_frames(takes), DATA | changes, seed=3)


def write_slowly(
    takes: list[Take], row: list[tuple[int, int, int]], usual: dict[str, float]
) -> tuple[list[Unit], list[Unit], list[dict[str, Any]]]:
    """The units that a row says, those ahead of its last one, and its frames."""
    told: list[Unit] = []
    frames: list[dict[str, Any]] = []
    for take, begin, end in row:
        script = takes[take].script
        owner = [n for n, count in enumerate(script.frames) for _ in range(count)]
        ratios = [
            count / usual[unit.symbol]
            for unit, count in zip(script.units, script.frames, strict=True)
            if not unit.is_pause
        ]
        here: dict[int, int] = {}
        for at in range(begin, end):
            number = owner[at]
            if number not in here:
                joins = bool(frames) and not here
                if joins and told[-1].is_pause and script.units[number].is_pause:
                    frames[-1]["ends"] = 0
                else:
                    told.append(script.units[number])
                here[number] = len(told) - 1
            if frames and frames[-1]["place"] == here[number]:
                age = frames[-1]["age"] + 1
            else:
                age = sum(owner[i] == number for i in range(at))
            frames.append(
                {
                    "codes": takes[take].codes[at, : CONFIG.num_groups].tolist(),
                    "place": here[number],
                    "age": age,
                    "ends": int(at + 1 == len(owner) or owner[at + 1] != number),
                    "pace": math.log(sum(ratios) / len(ratios)),
                }
            )
        last = owner[end - 1]
        ahead = script.units[last + 1 : last + 1 + CONFIG.units_after]
    return told, list(ahead), frames


def number_of(unit: Unit) -> list[int]:
    return [1 + SYMBOLS.index(unit.symbol), unit.stress, unit.place]


def test_rows_are_written_out_as_a_slow_loop_does():
    takes = make_takes(30)
    recitals, usual = make_recitals(takes), usual_frames(takes)
    rows = recitals.arrange(0)
    nothing = np.zeros(len(rows), np.bool_)
    recital = recitals.assemble(rows, nothing, nothing)
    lengths = set()
    for number, row in enumerate(rows):
        told, ahead, frames = write_slowly(takes, row, usual)
        length = len(frames)
        lengths.add(length)
        units = recital.units[number].tolist()
        written = [number_of(unit) for unit in told + ahead]
        assert units == written + [[0, 0, 0]] * (len(units) - len(written))
        for name in ("codes", "place", "age", "ends"):
            tensor = getattr(recital, name)[number]
            assert tensor[:length].tolist() == [frame[name] for frame in frames], name
        paces = [frame["pace"] for frame in frames]
        assert recital.pace[number, :length].tolist() == pytest.approx(paces, abs=1e-6)
        # behind the end there is nothing, and its text sees nothing either
        assert (recital.codes[number, length:] == NONE).all()
        assert (recital.ends[number, length:] == UNTOLD).all()
        last = len(units) - 1
        assert (recital.place[number, length:] == last).all()
        assert len(written) <= last - CONFIG.units_before
        assert recital.who[number] == int(takes[row[0][0]].utterance.speaker == "a")
    assert DATA["row_frames"] in lengths and len(lengths) > 1
    assert any(len(row) > 2 for row in rows)


def test_what_has_no_text_sees_none_either_in_a_row_full_of_units():
    rng = np.random.default_rng(0)
    takes = [make_take(f"fast-{i}", "a", rng, 50) for i in range(3)]
    hasty = []
    for take in takes:
        frames = (1,) * len(take.script.units)
        script = TimedScript(take.script.key, take.script.units, frames)
        hasty.append(Take(take.utterance, script, take.codes[: len(frames)]))
    recitals = make_recitals(hasty)
    rows = [row for row in recitals.arrange(0) if sum(end - at for _, at, end in row) == 40]
    recital = recitals.assemble(rows, np.zeros(len(rows), bool), np.zeros(len(rows), bool))
    told = (recital.units[:, :, 0] > 0).sum(1)
    assert int(told.max()) == 40 + CONFIG.units_after
    assert (recital.units[:, -1 - CONFIG.units_before :] == 0).all()
    assert recital.units.shape[1] == 40 + CONFIG.units_after + CONFIG.units_before + 1


def test_a_pass_keeps_speakers_apart_and_takes_whole_until_the_row_is_full():
    takes = make_takes(40)
    for number in range(3):
        rows = make_recitals(takes).arrange(number)
        heard = np.zeros(40, int)
        for row in rows:
            assert len({takes[take].utterance.speaker for take, _, _ in row}) == 1
            assert sum(end - begin for _, begin, end in row) <= 40
            for at, (take, begin, end) in enumerate(row):
                heard[take] += end - begin
                assert begin == 0 or at == 0
                assert end == len(takes[take].codes) or at == len(row) - 1
        assert all(0 < n <= len(take.codes) for n, take in zip(heard, takes, strict=True))


def test_long_takes_are_heard_to_their_ends_now_and_then():
    takes = [make_take("long", "a", np.random.default_rng(0), 40)]
    recitals = make_recitals(takes)
    ends = [max(end for row in recitals.arrange(n) for _, _, end in row) for n in range(20)]
    assert 40 < len(takes[0].codes) == max(ends) and min(ends) == 40


def test_what_a_step_learns_from_depends_on_seed_and_step_alone():
    takes = make_takes(40)
    shares = {"untold_share": 0.3, "nobody_share": 0.3}
    first = make_recitals(takes, **shares)
    straight = [first.recital(step) for step in range(2 * first.num_steps + 1)]
    later = make_recitals(takes, **shares)
    for step in (2 * first.num_steps, 0, 1):
        pairs = zip(straight[step], later.recital(step), strict=True)
        assert all(bool((a == b).all()) for a, b in pairs)
    assert not bool((straight[0].codes == straight[first.num_steps].codes).all())


def test_shares_of_rows_have_no_text_or_no_voice():
    recitals = make_recitals(make_takes(60), untold_share=0.4, nobody_share=0.25)
    steps = [recitals.recital(step) for step in range(100)]
    untold = np.concatenate([(r.ends == UNTOLD).all(1).numpy() for r in steps])
    assert 0.3 < untold.mean() < 0.5
    for recital in steps[:5]:
        for row in np.flatnonzero((recital.ends == UNTOLD).all(1).numpy()):
            assert (recital.units[row] == 0).all() and (recital.age[row] == 0).all()
            assert (recital.pace[row] == 0).all() and (recital.codes[row, 0] < NONE).all()
    alone = make_recitals(
        [t for t in make_takes(60) if t.utterance.speaker == "a"], nobody_share=0.25
    )
    who = np.concatenate([alone.recital(step).who.numpy() for step in range(100)])
    assert 0.15 < (who == 0).mean() < 0.35 and set(who) == {0, 1}


def test_who_goes_on_without_a_text_is_often_nobody():
    takes = [t for t in make_takes(60) if t.utterance.speaker == "a"]
    recitals = make_recitals(takes, untold_share=0.5, untold_nobody_share=0.7)
    steps = [recitals.recital(step) for step in range(100)]
    untold = np.concatenate([(r.ends == UNTOLD).all(1).numpy() for r in steps])
    who = np.concatenate([r.who.numpy() for r in steps])
    assert (who[~untold] == 1).all() and 0.6 < (who[untold] == 0).mean() < 0.8


def test_what_has_no_script_is_never_told_and_other_texts_may_never_lack():
    takes = make_takes(40)
    said = {take.utterance.key: take.script for take in takes}
    codes = {take.utterance.key: take.codes for take in takes}
    everybody = [take.utterance for take in takes]
    a, b = ([u for u in everybody if u.speaker == name] for name in "ab")
    mixed = match_takes(a, said, codes, always_told=[u.key for u in a]) + take_untold(b, codes)
    assert [sum(take.script.frames) for take in mixed] == [len(take.codes) for take in mixed]
    recitals = Recitals(CONFIG, mixed, ["a"], usual_frames(mixed), DATA | {"untold_share": 0.5}, 3)
    for step in range(20):
        recital = recitals.recital(step)
        untold = (recital.ends == UNTOLD).all(1)
        assert torch.equal(untold, recital.who == 0) and untold.any() and not untold.all()
        assert (recital.units[untold] == 0).all() and (recital.pace[untold] == 0).all()


def test_people_without_scripts_meet_where_rows_would_not_be_full():
    rng = np.random.default_rng(0)
    people = [make_take(f"take-{i}", f"person-{i}", rng, 3) for i in range(60)]
    silent = take_untold([t.utterance for t in people], {t.utterance.key: t.codes for t in people})
    told = make_takes(9)
    takes = told + silent
    recitals = Recitals(CONFIG, takes, ["person-3"], usual_frames(takes), DATA, 3)
    apart, rows = recitals.arrange(0), recitals.arrange(0, meet=True)
    alike = [row for row in apart if row[0][0] < len(told)]
    assert [row for row in rows if row[0][0] < len(told)] == alike
    heard = sorted(piece for row in rows for piece in row)
    assert heard == sorted(piece for row in apart for piece in row)
    sizes = np.array([sum(end - at for _, at, end in r) for r in rows if r[0][0] >= len(told)])
    assert sizes.max() <= 40 and len(sizes) < 45 and sizes.mean() > 30
    meeting = Recitals(CONFIG, silent, ["person-3"], {}, DATA | {"people_meet": True}, 3)
    step = meeting.recital(0)
    alone = (step.codes[..., 0] < NONE).sum(1) <= max(len(take.codes) for take in silent)
    assert (step.who[~alone] == 0).all() and (~alone).any()
    assert all(len(row) == 1 for row in meeting.arrange(0))  # as dev is scored


def test_dev_is_scored_with_the_text_without_and_alone():
    ways = make_recitals(make_takes(40), untold_share=0.5, nobody_share=0.5).dev_ways()
    assert len(ways) == 2
    for told, untold, alone in ways:
        assert bool((told.codes == untold.codes).all()) and bool((told.who == untold.who).all())
        assert (told.ends >= 0).any(1).all() and (untold.ends == UNTOLD).all()
        pairs = zip(untold[:-1], alone[:-1], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) and (alone.who == 0).all()


def test_paces_tell_how_much_longer_than_usual_phones_are():
    def take(key: str, frames: tuple[int, ...]) -> Take:
        units = (Unit("_", 0, 0, 0), Unit("s", 0, 1, 0), Unit("t", 0, 2, 0))
        codes = np.zeros((sum(frames), 4), np.int16)
        return Take(
            Utterance(key=key, text="", speaker="a"), TimedScript(key, units, frames), codes
        )

    takes = [take("slow", (50, 6, 3)), take("fast", (1, 2, 1))]
    assert usual_frames(takes) == {"s": 4.0, "t": 2.0}
    recitals = make_recitals(takes)
    assert recitals.paces == pytest.approx([math.log(1.5), math.log(0.5)])
    assert recitals.mean_paces(["a"]).tolist() == pytest.approx([math.log(0.75) / 2])
