"""The generator while it is trained: what it hears, what it should say, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiossm.checkpoint import ModelFolder, read_weights
from audiossm.codec import LoadedCodec
from audiossm.config import from_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.models.generator import Generator, GeneratorConfig, delay_codes
from audiossm.models.loaded_generator import save_generator
from audiossm.train.recitals import UNTOLD, Recital
from audiossm.train.run import Run
from audiossm.train.talker import Talker, score_talker
from toy_codec import make_codec
from toy_recital import CONFIG, FRAMES, GROUPS, NONE, make_recital


def make_talker(noise: float = 0.0) -> Talker:
    return Talker(CONFIG, 3, noise)


def hear_slowly(talker: Talker, recital: Recital) -> list[float]:
    """Each loss by a loop over steps and groups: group g of frame s - g is guessed at step s."""
    net, (rows, frames, groups) = talker.generator, recital.codes.shape
    inputs = torch.full((rows, frames, groups), NONE)
    for step in range(frames):
        for group in range(groups):
            if step - 1 - group >= 0:
                inputs[:, step, group] = recital.codes[:, step - 1 - group, group]
    texts = net.read(recital.units.long())
    told = [[texts[row, recital.place[row, step]] for step in range(frames)] for row in range(rows)]
    text = torch.stack([torch.stack(row) for row in told])
    x = net.embed(inputs, text, recital.age.long(), talker.voices.weight[recital.who], recital.pace)
    outputs = net(x)
    sums: list[list[Tensor]] = [[] for _ in range(groups + 1)]
    for row in range(rows):
        for step in range(frames):
            for group in range(groups):
                frame = step - group
                if frame >= 0 and recital.codes[row, frame, group] != NONE:
                    logits = outputs[row, step, group * NONE : (group + 1) * NONE]
                    code = recital.codes[row, frame, group]
                    sums[group].append(-logits.log_softmax(0)[code])
            if recital.ends[row, step] != UNTOLD:
                sign = 1 if recital.ends[row, step] else -1
                sums[groups].append(-F.logsigmoid(sign * outputs[row, step, -1]))
    return [torch.stack(terms).mean().item() for terms in sums]


def test_losses_are_those_of_a_slow_loop():
    talker, recital = make_talker().eval(), make_recital()
    losses = talker(recital)
    torch.testing.assert_close(losses, torch.tensor(hear_slowly(talker, recital)))
    # in training the rows of codes are added up by a product
    torch.testing.assert_close(talker.train()(recital), losses)


def test_the_delay_pattern():
    codes = torch.tensor([[[1, 2], [3, 4], [5, 6]]])
    assert delay_codes(codes, 9).tolist() == [[[1, 9], [3, 2], [5, 4], [9, 6]]]


def test_a_code_is_guessed_from_nothing_that_comes_later():
    talker, recital = make_talker().eval(), make_recital()
    heard: list[Tensor] = []
    step = talker.generator.step
    talker.generator.step = lambda x, state: step(heard.append(x) or x, state)  # type: ignore
    talker(recital)
    for frame in range(FRAMES):
        for group in range(GROUPS):
            codes = recital.codes.clone()
            codes[0, frame, group] = (codes[0, frame, group] + 1) % NONE
            talker(recital._replace(codes=codes))
            same = (heard[-1] == heard[0]).all(-1)
            # what step frame + group made, the step after it hears, and no other
            changed = {frame + group + 1} & set(range(FRAMES))
            assert {*torch.nonzero(~same[0]).flatten().tolist()} == changed and same[1].all()


def test_without_text_the_ends_count_nothing():
    recital = make_recital()
    untold = recital._replace(ends=torch.full_like(recital.ends, UNTOLD))
    losses = make_talker()(untold)
    assert losses[-1] == 0 and losses.isfinite().all()


def test_nobody_has_a_voice_of_zeros_and_keeps_it():
    talker, recital = make_talker(), make_recital()
    run = Run(talker, talker, lr=0.1, weight_decay=0.1, ema=0.9, betas=(0.9, 0.98))
    before = talker.voices.weight.detach().clone()
    assert (before[0] == 0).all() and 0.05 < before[1:].std() < 0.2
    run.advance(talker(recital._replace(who=torch.tensor([0, 2]))).sum(), 0.1, 1.0)
    changed = (talker.voices.weight != before).any(1).tolist()
    assert changed[0] is False and changed[2] is True


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.5])
def test_some_frames_of_half_the_rows_are_heard_as_other_codes_or_as_none(noise):
    codes = torch.zeros(4000, 20, GROUPS, dtype=torch.int64)
    heard = make_talker(noise).mishear(codes)
    none, other = (heard == NONE).all(-1), ((heard > 0) & (heard < NONE)).any(-1)
    assert ((heard == NONE).any(-1) == none).all() and heard.max() <= NONE
    assert none.float().mean() == pytest.approx(noise / 2, abs=0.02)
    assert other.float().mean() == pytest.approx(noise / 2, abs=0.02)
    spared = (heard == codes).all((1, 2))
    assert spared.float().mean() == pytest.approx(0.5 if noise else 1.0, abs=0.05)


def test_more_noise_than_half_the_frames_is_refused():
    with pytest.raises(ConfigError, match=r"train.noise is 0.6, must be from 0 to 0.5"):
        make_talker(0.6)


def test_noise_is_for_training_alone():
    talker, recital = make_talker(noise=0.5), make_recital()
    assert not torch.equal(talker(recital), talker(recital))
    talker.eval()
    assert torch.equal(talker(recital), talker(recital))


def test_it_learns_what_units_sound_like():
    """Codes that tell the unit and its age: a guess without text can't do better than chance."""
    torch.manual_seed(0)
    talker = make_talker(noise=0.1)
    run = Run(talker, talker, lr=1e-2, weight_decay=0.0, ema=0.5, betas=(0.9, 0.98))

    def make(rows: int) -> Recital:
        recital = make_recital(rows, 24)
        recital.units[..., 1:] = 0
        units = recital.units[:, :12, 0].long() % 8 + 1
        recital.units[:, :12, 0] = units.to(torch.uint8)
        codes = 10 * units.repeat_interleave(2, 1) + torch.arange(24) % 2
        recital.codes[:] = torch.stack([codes, codes + 300], -1).to(torch.int16)
        recital.place[1], recital.ends[1] = recital.place[0], recital.ends[0]
        return recital._replace(who=torch.randint(0, 4, (rows,)))

    losses = []
    for _ in range(60):
        loss = talker(make(8))
        losses.append(loss.tolist())
        run.advance(loss.sum(), 1e-2, 1.0)
    first, last = losses[0], losses[-1]
    assert first[0] == pytest.approx(math.log(NONE), abs=0.7)
    assert all(late < 0.3 * early for early, late in zip(first, last, strict=True)), (first, last)
    told = make(8)
    untold = told._replace(place=torch.full_like(told.place, told.units.shape[1] - 1))
    alone = untold._replace(who=torch.zeros_like(told.who))
    scores = score_talker(run.ema, [(told, untold, alone)])
    assert list(scores) == [
        "dev_bits_0",
        "dev_bits_1",
        "dev_ends",
        "dev_bits_0_untold",
        "dev_bits_1_untold",
        "dev_bits_0_alone",
        "dev_bits_1_alone",
    ]
    assert scores["dev_bits_0"] < 0.5 * scores["dev_bits_0_untold"]
    with torch.no_grad():
        bits = (run.ema(alone) / math.log(2)).tolist()
    assert scores["dev_bits_1_alone"] == pytest.approx(bits[1], abs=1e-4)
    more = score_talker(run.ema, [(told, untold, alone)], [alone, told])
    assert list(more)[len(scores) :] == ["dev_bits_0_strangers", "dev_bits_1_strangers"]
    both = (more["dev_bits_0_alone"] + more["dev_bits_0"]) / 2
    assert more["dev_bits_0_strangers"] == pytest.approx(both, abs=1e-4)


def test_it_begins_from_another_one_and_its_voices(tmp_path):
    codec = LoadedCodec(make_codec(), name="toy", model_hash="0" * 32)
    theirs, ours = make_talker(), Talker(CONFIG, 2)
    save_generator(tmp_path / "model", "says things", theirs.generator, codec)
    paces = torch.tensor([0.1, 0.2, 0.3])
    theirs.save_voices(tmp_path, ["a", "ö", "c"], paces)
    with safe_open(tmp_path / "voices.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("paces"), paces)
    new = ours.voices.weight[1].clone()
    quick = Talker(CONFIG, 2)
    quick.begin_from(str(tmp_path / "model"), ["c@1.1", "ö"])
    assert torch.equal(quick.voices.weight[1], theirs.voices.weight[3])
    ours.begin_from(str(tmp_path / "model"), ["b", "ö"])
    assert torch.equal(ours.voices.weight[2], theirs.voices.weight[2])
    assert torch.equal(ours.voices.weight[1], new)
    for name, weight in ours.generator.state_dict().items():
        assert torch.equal(weight, theirs.generator.state_dict()[name].half().float()), name
    wider = Talker(replace(CONFIG, d_unit=24), 2)
    with pytest.raises(ConfigError, match=r"model' has other sizes: d_unit is \d+ \(here 24\)$"):
        wider.begin_from(str(tmp_path / "model"), [])


def test_it_begins_from_one_of_fewer_layers_and_does_the_same(tmp_path):
    codec = LoadedCodec(make_codec(), name="toy", model_hash="0" * 32)
    theirs, recital = make_talker().eval(), make_recital()
    save_generator(tmp_path / "model", "says things", theirs.generator, codec)
    halves = {name: w.half().float() for name, w in theirs.generator.state_dict().items()}
    theirs.generator.load_state_dict(halves)
    deeper = Talker(replace(CONFIG, backbone=replace(CONFIG.backbone, num_layers=5)), 2)
    deeper.begin_from(str(tmp_path / "model"), [])
    recital = recital._replace(who=torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(deeper.eval()(recital), theirs(recital), atol=1e-6)
    deeper.train()(recital).sum().backward()
    for block in deeper.generator.blocks():  # all can learn
        assert block.mixer.out_proj.weight.grad.abs().sum() > 0
        assert block.mlp.fc2.weight.grad.abs().sum() > 0
    shallow = Talker(replace(CONFIG, backbone=replace(CONFIG.backbone, num_layers=1)), 2)
    with pytest.raises(ConfigError, match=r"other sizes: backbone.num_layers is 2 \(here 1\)$"):
        shallow.begin_from(str(tmp_path / "model"), [])
    backbone = replace(CONFIG.backbone, attention_layers=(1,), attention_heads=4)
    looking = Generator(replace(CONFIG, backbone=backbone))
    save_generator(tmp_path / "looking", "says things", looking, codec)
    with pytest.raises(ConfigError, match="has layers of attention.*take num_layers = 2$"):
        deeper.begin_from(str(tmp_path / "looking"), [])
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["layers.1.mlp.fc2.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelError, match="config and weights are not of the same model"):
        deeper.begin_from(str(tmp_path / "model"), [])
    wider = replace(CONFIG, d_unit=24, backbone=deeper.generator.config.backbone)
    with pytest.raises(ConfigError, match=r"model' has other sizes: d_unit is \d+ \(here 24\)$"):
        Talker(wider, 2).begin_from(str(tmp_path / "model"), [])


def test_a_model_folder_names_the_codec_and_has_halves(tmp_path):
    codec = LoadedCodec(make_codec(), name="toy", model_hash="0" * 32)
    network = make_talker().generator
    save_generator(tmp_path / "model", "says things", network, codec)
    folder = ModelFolder.open(tmp_path / "model")
    assert (folder.kind, folder.description) == ("generator", "says things")
    assert folder.config["codec"] == {"name": "toy", "hash": codec.codes_hash}
    assert from_dict(GeneratorConfig, folder.config["generator"]) == CONFIG
    weights = read_weights(folder)
    assert set(weights) == set(network.state_dict())
    parameters = sum(weight.numel() for weight in weights.values())
    assert 2 * parameters < folder.weights.stat().st_size < 2.5 * parameters
