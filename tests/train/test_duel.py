"""Decoder and judges learn from each other; a step is undone, repeated and resumed exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from audiossm.codec import Codec, CodecConfig, DetailConfig
from audiossm.config import load_toml
from audiossm.errors import ModelError
from audiossm.train.decoder_trainee import DecoderTrainee
from audiossm.train.duel import Duel
from tiny_model import read_speech

CONFIG = Path(__file__).parents[2] / "recipes" / "codec" / "config.toml"
DETAIL = DetailConfig(num_bins=20, d_model=16, d_hidden=24, num_blocks=1)
QUICK = {
    "discriminators": True,
    "head_start": 2,
    "pitch_told": 2,
    "codes_warmup": 1,
    "lr": 3e-3,
    "codes_lr": 3e-3,
    "ema": 0.5,
}
ALL = torch.tensor([4, 4])


@pytest.fixture
def audio() -> torch.Tensor:
    return torch.from_numpy(read_speech()[16000 : 16000 + 24 * 320].copy()).view(2, -1)


def make_duel(*, train_codes: bool = True, **changes: float) -> Duel:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        codec = Codec(replace(CodecConfig.tiny(), detail=DETAIL))
        trainee = DecoderTrainee(codec, 2, train_codes=train_codes)
    return Duel(trainee, load_toml(CONFIG)["second_stage"] | QUICK | changes, captured=False)


def weights(duel: Duel) -> dict[str, torch.Tensor]:
    ours = {f"ours.{k}": v.clone() for k, v in duel.trainee.state_dict().items()}
    return ours | {f"ema.{k}": v.clone() for k, v in duel.voice.ema.state_dict().items()}


def changed(duel: Duel, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, x in weights(duel).items() if not torch.equal(x, before[name])}


def learnt(duel: Duel) -> set[str]:
    """Return what is to change in a step: all but the encoder."""
    trained = {f"ours.{k}" for k, p in duel.trainee.named_parameters() if p.requires_grad}
    return trained | {f"ema.{k[11:]}" for k in trained if k.startswith("ours.codec.")}


def test_the_decoder_comes_closer_and_the_judges_tell_better(audio):
    duel, rows = make_duel(head_start=3), []
    for _ in range(8):
        duel.advance(audio, ALL)
        rows.append(duel.read())
    assert rows[-1]["mel"] < 0.93 * rows[0]["mel"]
    assert rows[-1]["consistency"] < rows[0]["consistency"]
    assert rows[-1]["telling"] < 0.95 * rows[0]["telling"]
    assert "fooling" not in rows[2] and {"fooling", "matching"} < rows[3].keys()
    assert duel.step == 8


def test_a_step_changes_both_sides_and_the_average_and_nothing_else(audio):
    duel = make_duel()
    duel.advance(audio, ALL)  # until then the branch's last layer is zero
    for _ in range(2):
        before = weights(duel)
        duel.advance(audio, ALL)
        assert changed(duel, before) == learnt(duel)


def test_codes_that_are_not_trained_stay(audio):
    duel = make_duel(train_codes=False)
    before = weights(duel)
    duel.advance(audio, ALL)
    assert not [n for n in changed(duel, before) if "to_latent" in n or "detail" in n]
    assert "codes_norm" not in duel.read()


def test_means_are_over_the_steps_that_had_the_number(audio):
    duel, parts = make_duel(head_start=1), []
    for _ in range(3):
        duel.advance(audio, ALL)
        parts.append(duel.read())
    again = make_duel(head_start=1)
    for _ in range(3):
        again.advance(audio, ALL)
    means = again.read()
    assert means["mel"] == pytest.approx(sum(row["mel"] for row in parts) / 3)
    assert means["fooling"] == pytest.approx((parts[1]["fooling"] + parts[2]["fooling"]) / 2)
    assert again.read() == {}


@pytest.mark.parametrize("judged", [False, True])
def test_a_broken_gradient_is_skipped(audio, judged):
    duel = make_duel(head_start=0 if judged else 9)
    duel.advance(audio, ALL)
    for run in (duel.voice, duel.judges):  # so that the average has nothing to catch up with
        run.ema.load_state_dict(run.product.state_dict())
    before = weights(duel)
    moments = [x.clone() for x in duel.voice.moments() + duel.judges.moments()]
    duel.advance(audio * torch.nan, ALL)
    assert changed(duel, before) == set()
    for old, new in zip(moments, duel.voice.moments() + duel.judges.moments(), strict=True):
        assert torch.equal(old, new)
    duel.advance(audio, ALL)
    assert changed(duel, before) == learnt(duel)


def test_a_rehearsal_does_not_count(audio):
    straight, rehearsed = make_duel(), make_duel()
    rehearsed.rehearse(audio, ALL, False)
    assert changed(rehearsed, weights(straight)) == set()
    for duel in (straight, rehearsed):
        duel.advance(audio, ALL)
    rehearsed.rehearse(audio, ALL, True)
    for duel in (straight, rehearsed):
        duel.advance(audio.flip(0), ALL)
        duel.advance(audio, ALL)
    assert changed(rehearsed, weights(straight)) == set()
    assert rehearsed.read() == straight.read()


def test_a_duel_that_was_stopped_goes_on_exactly(audio, tmp_path):
    straight, stopped, path = make_duel(), make_duel(), tmp_path / "decoder.pt"
    assert not stopped.load(path)
    for _ in range(3):
        straight.advance(audio, ALL)
        stopped.advance(audio, ALL)
    stopped.save(path)
    resumed = make_duel()
    assert resumed.load(path) and resumed.step == 3
    for duel in (straight, resumed):
        duel.read()
        duel.advance(audio, ALL, pace=0.5)
        duel.advance(audio, ALL, pace=0.25)
    assert changed(resumed, weights(straight)) == set()
    assert resumed.read() == straight.read()


def test_a_checkpoint_of_the_version_with_two_files_is_told_apart(tmp_path):
    duel, path = make_duel(), tmp_path / "decoder.pt"
    duel.voice.save(path)
    with pytest.raises(
        ModelError, match="decoder.pt: an older version kept it, with the judges in"
    ):
        duel.load(path)


def test_decoder_and_codes_are_clipped_and_paced_apart(audio):
    duel = make_duel(codes_lr=0.0, weight_decay=0.0)
    before = weights(duel)
    duel.advance(audio, ALL)
    moved = {name for name in changed(duel, before) if name.startswith("ours.codec.")}
    assert moved and all(name.startswith("ours.codec.decoder.") for name in moved)
    norms = [
        torch.stack([p.grad.norm() for p in x if p.grad is not None]) for x in duel.voice.parts
    ]
    row, clip = duel.read(), duel.hp["grad_clip"]
    for norm, name in zip(norms, ("norm", "codes_norm"), strict=True):
        assert norm.norm().item() == pytest.approx(min(row[name], clip), rel=1e-3)


class Watch(TorchDispatchMode):
    """Notes the operations that would make the host wait for a device, or feed it from the host."""

    waits = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "lift_fresh", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.num = set[str](), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += 1
        self.seen |= {func._overloadpacket.__name__} & set(self.waits)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("judged", [False, True])
def test_nothing_in_a_step_waits_for_the_device(audio, judged):
    duel = make_duel()
    with Watch() as watch:
        duel.exchange(audio, ALL, judged)
    assert watch.num > 1000 and watch.seen == set()
    with Watch() as watch:
        torch.tensor(float(audio[0, 0]))
    assert watch.seen == {"_local_scalar_dense", "lift_fresh"}


def test_without_judges_they_stay_and_the_rest_learns(audio):
    duel = make_duel(discriminators=False)
    before = weights(duel)
    for _ in range(3):
        duel.advance(audio, ALL)
    judges = {name for name in before if name.startswith("ours.judges.")}
    assert judges and not judges & changed(duel, before)
    assert changed(duel, before) == learnt(duel) - judges
    assert not {"telling", "fooling", "matching", "judges_norm"} & duel.read().keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_is_the_step(audio):
    duels = []
    for captured in (False, True):
        duel = make_duel()
        trainee = duel.trainee.to("cuda")
        duels.append(Duel(trainee, duel.hp, captured=captured))
    rows = []
    for duel in duels:
        for step in range(6):
            heard = audio.cuda().flip(0) if step % 2 else audio.cuda()
            duel.advance(heard if step < 5 else heard[:, : 11 * 320], ALL.cuda(), 1 / (1 + step))
        rows.append(duel.read())
    assert rows[0].keys() == rows[1].keys()
    for name, value in rows[0].items():
        assert rows[1][name] == pytest.approx(value, rel=0.02, abs=0.02), name
