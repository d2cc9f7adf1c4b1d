"""The measures of a codec's sound are right at their ends, and its table says what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiossm import checkpoint
from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import to_dict
from audiossm.errors import AudioError, ConfigError, DependencyError, ModelError, ShapeError
from audiossm.evaluate import codec as evaluation
from audiossm.evaluate.codec import Measurement, evaluate_codec
from audiossm.evaluate.codec_scores import CodecEvaluation, Means, Score
from audiossm.evaluate.coders import Coded, Coder, draw_losses, make_coders, run_opus
from audiossm.evaluate.delay import find_delay, remove_delay
from audiossm.evaluate.mel_distance import WINDOWS, get_filters, mel_distance
from audiossm.evaluate.metrics import DEFAULT_METRICS
from audiossm.evaluate.opus import code_opus, require_av
from audiossm.evaluate.pitch import PitchErrors
from audiossm.evaluate.quality import Quality, measure_quality, pesq_wb, require_metrics, stoi
from audiossm.evaluate.wer import WordErrors, count_word_errors
from audiossm.manifest import read_manifest
from audiossm.streaming import Transcriber
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber, read_speech

RATE = 16000


@pytest.fixture
def speech() -> torch.Tensor:
    """(samples,): 3 s of a recording."""
    return torch.from_numpy(read_speech()[: 3 * RATE].copy())


@pytest.fixture
def noise(speech) -> torch.Tensor:
    return 0.03 * torch.randn(len(speech))


@pytest.fixture
def metrics() -> None:
    """For tests that need the two packages of the evaluation extra that measure."""
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")


@pytest.fixture
def opus() -> None:
    pytest.importorskip("av")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder with a random codec of 4 groups."""
    codec = Codec(CodecConfig.tiny())
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    return tmp_path / "toy"


def delay(x: torch.Tensor, samples: int) -> torch.Tensor:
    return torch.cat([x.new_zeros(samples), x])


def write_manifest(folder: Path, *names: str) -> Path:
    path = folder / "manifest.jsonl"
    lines = [json.dumps({"key": Path(name).stem, "path": name, "text": ""}) for name in names]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_mel_distance_is_zero_for_equals_and_the_same_both_ways(speech, noise):
    noisy = speech + noise
    assert mel_distance(speech, speech.clone(), RATE) == 0
    there, back = mel_distance(speech, noisy, RATE), mel_distance(noisy, speech, RATE)
    assert there == back > 0.1


def test_the_mel_distance_grows_with_noise(speech, noise):
    distances = [mel_distance(speech, speech + gain * noise, RATE) for gain in (0.1, 0.3, 1, 3)]
    assert distances == sorted(distances) and distances[0] > 0


def test_ten_decibels_in_all_bands_are_a_mel_distance_of_one(noise):
    assert mel_distance(noise, noise * 10**0.5, RATE) == pytest.approx(1, abs=1e-4)


def test_below_the_floor_there_is_no_mel_distance(noise):
    assert mel_distance(noise * 0, noise * 1e-5, RATE) == 0
    assert mel_distance(noise * 0, noise, RATE) > 3


def test_a_single_sample_has_a_mel_distance():
    assert mel_distance(torch.zeros(1), torch.ones(1), RATE) > 0


def test_every_mel_band_hears_something():
    for window, num_bands in WINDOWS:
        assert (get_filters(num_bands, window, RATE).amax(0) > 0.3).all()


@pytest.mark.parametrize("samples", [0, 1, 104, 700, 960])
def test_a_delay_is_found_and_removed(speech, noise, samples):
    late = delay(0.5 * (speech + noise), samples)
    assert find_delay(speech, late, 960) == samples
    aligned = remove_delay(late, samples, len(speech))
    torch.testing.assert_close(aligned, 0.5 * (speech + noise))


def test_only_a_delay_is_found_and_only_within_reach(speech):
    assert 0 <= find_delay(speech, delay(speech, 961), 960) <= 960
    # on a circle of 1024 samples, 900 too early would be 124 too late
    burst, pause = torch.randn(100), torch.zeros(900)
    early = find_delay(torch.cat([pause, burst]), torch.cat([burst, pause]), 960)
    assert early != 124


def test_silence_has_no_delay_and_a_short_end_is_filled_with_zeros(speech):
    assert find_delay(torch.zeros(90), torch.zeros(70), 960) == 0
    assert torch.equal(remove_delay(torch.ones(5), 3, 4), torch.tensor([1.0, 1, 0, 0]))
    assert torch.equal(remove_delay(torch.ones(5), 9, 2), torch.zeros(2))


def test_signals_that_cannot_be_compared_are_refused(speech):
    with pytest.raises(ShapeError, match=r"mel_distance .* \(48000,\), \(47999,\)"):
        mel_distance(speech, speech[1:], RATE)
    with pytest.raises(ShapeError, match="mel_distance"):
        mel_distance(speech[:0], speech[:0], RATE)
    with pytest.raises(ShapeError, match="find_delay"):
        find_delay(speech[None], speech, 9)
    for measure in (pesq_wb, stoi):
        with pytest.raises(ShapeError, match=r"one length, got \(48000,\), \(47999,\)"):
            measure(speech, speech[1:])


def test_equal_signals_have_the_best_values(metrics, speech):
    quality = measure_quality(speech, speech.clone())
    assert quality.pesq_wb == pytest.approx(4.644, abs=1e-3)
    assert quality.stoi == pytest.approx(1, abs=1e-6)
    assert quality.mel_distance == 0 and not quality.refusals
    assert quality.si_sdr_db == 100 and quality.pitch is None


def test_noise_makes_all_values_worse(metrics, speech, noise):
    found = [measure_quality(speech, speech + gain * noise) for gain in (0, 0.1, 0.4, 1.6)]
    for better, worse in zip(found, found[1:], strict=False):
        assert better.pesq_wb > worse.pesq_wb + 0.05
        assert better.stoi > worse.stoi + 0.001
        assert better.mel_distance < worse.mel_distance


def test_a_delayed_copy_scores_as_the_copy_once_it_is_aligned(metrics, speech, noise):
    noisy = speech + 0.2 * noise
    late = delay(noisy, 333)
    aligned = remove_delay(late, find_delay(speech, late, 960), len(speech))
    assert measure_quality(speech, aligned) == measure_quality(speech, noisy)
    assert stoi(speech, late[: len(speech)]) < stoi(speech, noisy) - 0.1


@pytest.mark.parametrize(
    ("samples", "gain", "pesq", "stoi"),
    [
        (3000, 1, "at least 1/4 of a second", "less than 0.4 s of speech"),
        (6400, 1, None, "less than 0.4 s of speech"),
        (1, 1, "at least 1/4 of a second", "less than 0.4 s of speech"),
        (RATE, 0, "nothing but digital silence", "less than 0.4 s of speech"),
        (RATE, float("nan"), "no finite numbers", "no finite numbers"),
    ],
)
def test_what_a_measure_refuses_has_no_value_but_a_reason(metrics, samples, gain, pesq, stoi):
    x = gain * torch.randn(samples)
    quality = measure_quality(x, x)
    for value, name, reason in ((quality.pesq_wb, "PESQ", pesq), (quality.stoi, "STOI", stoi)):
        assert (value is None) == (name in quality.refusals) == (reason is not None)
        assert reason is None or reason in quality.refusals[name]


def test_pesq_refuses_a_recording_without_speech_and_a_result_too_quiet_to_count(metrics, speech):
    click = torch.zeros(5 * RATE)
    click[:2000] = torch.randn(2000)
    with pytest.raises(AudioError, match="No utterances detected"):
        pesq_wb(click, click)
    with pytest.raises(AudioError, match="signal this quiet"):
        pesq_wb(speech, speech * 1e-30)
    with pytest.raises(AudioError, match="digital silence"):
        pesq_wb(speech, speech * 0)


def test_pesq_survives_a_minute_of_a_hundred_words(metrics):
    # in one piece, these overrun a table of the package and end the process
    words = torch.arange(60 * RATE) // 4000 % 2
    x = 0.1 * torch.randn(60 * RATE) * words
    assert pesq_wb(x, x.clone()) == pytest.approx(4.644, abs=1e-3)
    worse = x + 0.1 * torch.randn(60 * RATE)
    assert pesq_wb(x, worse) < 3


def test_opus_is_late_by_its_own_delay_and_spends_what_it_was_told(metrics, opus, speech):
    scores = []
    for bit_rate in (6000, 12000, 32000):
        late, payload_bps = code_opus(speech, RATE, bit_rate)
        assert late.dtype == torch.float32 and len(late) >= len(speech) + 104
        assert 0.75 * bit_rate < payload_bps < 1.15 * bit_rate
        found = find_delay(speech, late, 960)
        assert 98 <= found <= 110  # 6.5 ms are 104
        scores.append(measure_quality(speech, remove_delay(late, found, len(speech))))
    assert scores[0].pesq_wb < scores[1].pesq_wb < scores[2].pesq_wb
    assert scores[0].stoi < scores[1].stoi < scores[2].stoi
    assert scores[0].mel_distance > scores[1].mel_distance > scores[2].mel_distance
    assert scores[2].pesq_wb > 4


def test_what_opus_made_is_in_time_and_as_long(opus, speech):
    for bit_rate in (6000, 32000):
        coded = run_opus(speech, np.zeros(0, bool), bit_rate=bit_rate)
        assert coded.samples.shape == speech.shape
        assert coded.delay_s == pytest.approx(0.0065, abs=4e-4)
        assert find_delay(speech, coded.samples, 960) == 0
    assert torch.corrcoef(torch.stack([speech, coded.samples]))[0, 1] > 0.9


def test_what_opus_loses_it_conceals_and_goes_on(opus, speech):
    whole, payload_bps = code_opus(speech, RATE, 12000)
    lost = np.zeros(9, bool)
    assert torch.equal(code_opus(speech, RATE, 12000, lost)[0], whole)
    lost = np.arange(200) % 50 == 20  # frames of 320 samples: 0.40 s, 1.40 s, 2.40 s
    late, payload_with_loss = code_opus(speech, RATE, 12000, lost)
    assert late.shape == whole.shape and payload_with_loss == payload_bps
    away = (late - whole).abs()
    assert away[: 20 * 320].max() == 0 and away[20 * 320 : 24 * 320].max() > 1e-3
    # not a hole, and soon over
    gap = late[20 * 320 + 120 : 21 * 320]
    assert gap.square().mean() > 0.1 * whole[19 * 320 : 20 * 320].square().mean()
    assert away[45 * 320 : 70 * 320].max() < 0.1 * whole.abs().max()


def test_lost_frames_are_the_same_for_every_coder_and_about_as_many_as_was_said():
    lost = draw_losses("a", 10**6, 0.1)
    assert len(lost) == 3128 and 0.08 < lost.mean() < 0.12
    assert np.array_equal(draw_losses("a", 5000, 0.1), lost[:18])
    assert not np.array_equal(draw_losses("b", 10**6, 0.1), lost)
    assert not draw_losses("a", 10**6, 0.0).any()
    # more loss is loss of more frames, not of others
    assert (draw_losses("a", 10**6, 0.2) >= lost).all()


def test_loss_makes_a_row_of_its_own_for_each_coder(metrics, opus, folder):
    utterances = read_manifest(SPEECH / "manifest.jsonl")[:1]
    codec = LoadedCodec.load(folder)
    result = evaluate_codec(codec, utterances, groups=[4], losses=[0.05, 0.2])
    names = [means.coder for means in result.means]
    assert names[4:] == [f"{name}, {p} % lost" for p in (5, 20) for name in names[:4]]
    for row in range(4):
        clean, some, many = (result.means[row + 4 * loss] for loss in range(3))
        assert clean.payload_bps == some.payload_bps == many.payload_bps
        assert clean.mel_distance != some.mel_distance != many.mel_distance
        if row:  # the codec of random weights has nothing to lose
            assert clean.pesq_wb > some.pesq_wb > many.pesq_wb > 1
            assert clean.stoi > some.stoi > many.stoi


def test_opus_keeps_the_level(opus, speech):
    late, _ = code_opus(speech, RATE, 32000)
    assert float(late.square().sum() / speech.square().sum()) == pytest.approx(1, abs=0.15)


def test_means_are_over_the_files_that_a_measure_took():
    def score(key: str, pesq: float | None, mel: float) -> Score:
        refusals = {} if pesq else {"PESQ": "no speech"}
        pitch = PitchErrors(10, 1, 4, 2, 400.0 * mel, 5, 3)
        quality = Quality(
            pesq_wb=pesq,
            stoi=0.5,
            mel_distance=mel,
            si_sdr_db=-mel,
            pitch=pitch,
            refusals=refusals,
        )
        return Score(
            key=key,
            coder="x",
            quality=quality,
            payload_bps=1000 * mel,
            delay_s=0.015,
            words=WordErrors(1, 0, 0, words=round(mel)),
        )

    scores = (score("a", 2.0, 1.0), score("b", None, 2.0), score("c", 3.0, 6.0))
    metrics = (*DEFAULT_METRICS, "f0", "wer")
    found = Means.of("x", scores).to_json(metrics, WordErrors(1, 1, 0, words=9))
    assert found == {
        "coder": "x",
        "files": 3,
        "payload_bps": 3000.0,
        "removed_delay_ms": 15.0,
        "pesq_wb_mos_lqo": 2.5,
        "pesq_files": 2,
        "pesq_refused_files": 1,
        "stoi_fraction": 0.5,
        "stoi_files": 3,
        "stoi_refused_files": 0,
        "mel_distance_log10_power": 3.0,
        "si_sdr_db": -3.0,
        "si_sdr_files": 3,
        "si_sdr_refused_files": 0,
        # counted over all frames and words, not averaged over files
        "f0_voicing_error_fraction": 0.1,
        "f0_rmse_cents": 17.32,  # of 3600 over 12 frames
        "f0_gross_error_fraction": 0.5,
        "f0_yin_gross_error_fraction": 0.6,
        "f0_frames": 30,
        "f0_frames_voiced_in_original": 15,
        "f0_frames_voiced_in_both": 12,
        "wer": 0.33333,
        "words": 9,
        "wer_over_original": 1.5,
    }
    nothing = Means.of("x", scores[1:2]).to_json(metrics, None)
    assert (nothing["pesq_wb_mos_lqo"], nothing["pesq_files"], nothing["files"]) == (None, 0, 1)


def test_refusals_are_listed_once_for_all_coders():
    quality = Quality(pesq_wb=None, stoi=0.5, mel_distance=1, refusals={"PESQ": "no speech"})
    scores = [
        Score(key="a", coder=coder, quality=quality, payload_bps=1, delay_s=0) for coder in "xy"
    ]
    result = CodecEvaluation(
        scores=tuple(scores),
        failures={},
        audio_s=1,
        metrics=DEFAULT_METRICS,
        series={"x": ("x",), "y": ("y",)},
        codec=None,
        codec_hash=None,
        codec_latency_s=None,
        machine={},
        packages={},
    )
    assert result.refusals == {("a", "PESQ", "no speech"): ["x", "y"]}
    assert [means.coder for means in result.means] == ["x", "y"]


def test_a_codec_is_measured_on_its_own_reconstruction(metrics, opus, folder, speech):
    codec = LoadedCodec.load(folder)
    utterances = read_manifest(SPEECH / "manifest.jsonl")[:1]
    done = []
    result = evaluate_codec(
        codec, utterances, groups=[1, 4], on_utterance=lambda: done.append(1)
    ).to_json()
    assert done == [1]
    names = ["toy, groups: 1", "toy, groups: 4"]
    names += [f"libopus {rate} kbps" for rate in (6, 8, 12)]
    assert [row["coder"] for row in result["coders"]] == names
    assert (result["codec"], result["codec_hash"]) == ("toy", codec.hash)
    assert (result["codec_latency_ms"], result["audio_s"]) == (35.0, 5.035)
    samples = torch.from_numpy(read_speech("river").copy())
    for groups, row in zip((1, 4), result["coders"], strict=False):
        # 50 frames a second, 10 bits a code, 240 samples late
        assert (row["payload_bps"], row["removed_delay_ms"]) == (500 * groups, 15)
        decoded = codec.network.reconstruct(samples[None], groups)[0]
        quality = measure_quality(samples, decoded)
        assert row["mel_distance_log10_power"] == pytest.approx(quality.mel_distance, abs=1e-3)
        assert row["stoi_fraction"] == pytest.approx(quality.stoi, abs=1e-3)
    best = result["coders"][-1]
    assert best["pesq_wb_mos_lqo"] > 2.5 and best["stoi_fraction"] > 0.9
    assert 10000 < best["payload_bps"] < 13000


def test_other_rates_and_channels_are_brought_to_the_measures_rate(metrics, opus):
    found = {item.key: item for item in read_manifest(SPEECH / "manifest.jsonl")}
    result = evaluate_codec(None, [found["stereo-44100"], found["telephone-8000"]])
    assert result.audio_s == pytest.approx(3.92 + 4.53)
    assert all(means.num_pesq == 2 and means.pesq_wb > 1.5 for means in result.means)


def test_the_command_prints_a_table_or_json(metrics, opus, folder, tmp_path, capsys):
    for name in ("river", "bread"):
        soundfile.write(tmp_path / f"{name}.wav", read_speech(name)[: 2 * RATE], RATE)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(RATE, np.float32), RATE)
    manifest = str(write_manifest(tmp_path, "river.wav", "quiet.wav", "bread.wav"))
    command = ["evaluate", "codec", manifest, "--model", str(folder), "--jobs", "1"]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    # a quarter of the groups, half, and all
    names = ["toy, groups: 1", "toy, groups: 2", "toy, groups: 4"]
    assert [row["coder"] for row in found["coders"][:3]] == names
    assert found["metrics"] == ["pesq", "stoi", "mel", "sisdr"] and found["original_wer"] is None
    for row in found["coders"]:
        assert (row["files"], row["pesq_files"], row["pesq_refused_files"]) == (3, 2, 1)
    refused = [(item["key"], item["measure"]) for item in found["refusals"]]
    assert refused == [("quiet", "PESQ"), ("quiet", "STOI"), ("quiet", "SI-SDR")]
    assert len(found["refusals"][0]["coders"]) == 6 and found["failures"] == []
    assert found["machine"]["processor"] and found["packages"].keys() == {"pesq", "pystoi", "av"}
    assert "quiet: PESQ refuses it (nothing but digital silence): toy, groups: 1; " in printed.err

    assert main([*command, "--groups", "3", "--limit", "1"]) == 0
    printed = capsys.readouterr()
    assert "toy (latency 35 ms) beside libopus" in printed.out
    assert "toy, groups: 3" in printed.out and "1.50" in printed.out
    assert "libopus 12 kbps" in printed.out and "torch" in printed.out and not printed.err


def test_opus_alone_needs_no_codec_and_an_unreadable_file_is_told(metrics, opus, tmp_path, capsys):
    soundfile.write(tmp_path / "river.wav", read_speech()[: 2 * RATE], RATE)
    manifest = str(write_manifest(tmp_path, "river.wav", "missing.wav"))
    assert main(["evaluate", "codec", manifest, "--opus-only", "--json", "--jobs", "1"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["codec"] is None and [row["files"] for row in found["coders"]] == [1, 1, 1]
    assert [item["key"] for item in found["failures"]] == ["missing"]
    assert printed.err.startswith("audiossm: error: missing: ")


def test_without_a_codec_nothing_is_measured(monkeypatch, capsys):
    manifest = str(SPEECH / "manifest.jsonl")
    monkeypatch.setattr(checkpoint, "model_names", lambda: [])
    monkeypatch.setattr(evaluation, "evaluate_codec", None)
    assert main(["evaluate", "codec", manifest]) == 1
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1
    assert "no codec is shipped: name one, or give a model's folder" in printed.err


def test_the_one_shipped_codec_is_found_and_of_two_one_must_be_chosen(
    folder, tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(checkpoint, "shipped_models", lambda: tmp_path)
    monkeypatch.setattr(
        evaluation, "evaluate_codec", lambda codec, *_, **__: asked.append(codec.name) or stop()
    )
    network = make_transcriber().network
    tables = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "ears", "recogniser", "", tables, network.state_dict())

    def stop():
        raise ModelError("far enough")

    command = ["evaluate", "codec", str(SPEECH / "manifest.jsonl")]
    assert main(command) == 1 and asked == ["toy"]
    folder.rename(tmp_path / "one")
    codec = Codec(CodecConfig.tiny())
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "two", "codec", "", tables, codec.state_dict())
    capsys.readouterr()
    assert main(command) == 1 and asked == ["toy"]
    assert "shipped codecs are one, two: name one of them" in capsys.readouterr().err


def test_groups_that_the_codec_lacks_and_another_rate_are_refused(folder):
    codec = LoadedCodec.load(folder)
    with pytest.raises(ConfigError, match="5 groups: codec 'toy' has 1 to 4"):
        make_coders(codec, [4, 5])
    table = to_dict(codec.config)
    table["encoder"]["sample_rate"] = 24000
    save_model(folder, "codec", "", {"codec": table}, codec.network.state_dict())
    with pytest.raises(ModelError, match="works at 24000 Hz, but PESQ compares at 16000 Hz"):
        make_coders(LoadedCodec.load(folder), None)


def test_groups_are_whole_numbers_and_about_a_codec(capsys):
    for more, message in (
        (["--groups", "4,x"], "'x' is not a whole number of at least 1"),
        (["--groups", "0"], "'0' is not a whole number of at least 1"),
        (["--loss", "5,100"], "'5,100' is not a list of percentages below 100"),
        (["--loss", "0"], "'0' is not a number above 0"),
        (["--opus-only", "--groups", "4"], "--groups is about a codec"),
        (["--opus-only", "--live"], "--live is about a codec"),
        (["--opus-only", "--model", "toy"], "not allowed with argument"),
        (["--metrics", "pesq,mos"], "'mos' is not one of pesq, stoi, mel, sisdr, f0, wer"),
        (["--recogniser", "x"], "--recogniser is about the metric wer"),
        (["--clips", "3"], "--clips is about --spectrograms FOLDER"),
        (["--plot", "a.png", "--metrics", "mel,f0"], "--plot draws PESQ and STOI"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", "codec", "manifest.jsonl", *more])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "require", "what"),
    [
        ("pesq", require_metrics, "PESQ is measured by pesq"),
        ("pystoi", require_metrics, "STOI is measured by pystoi"),
        ("av", require_av, "Opus is encoded by PyAV"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, package, require, what):
    for name in ("pesq", "pystoi", "av"):
        monkeypatch.setitem(sys.modules, name, sys)  # any module: it is only asked for
    require()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=what) as caught:
        require()
    assert "pip install 'audiossm[eval]'" in str(caught.value)


def test_only_what_was_asked_for_is_measured(monkeypatch, speech, noise):
    for package in ("pesq", "pystoi", "librosa"):
        monkeypatch.setitem(sys.modules, package, None)
    quality = measure_quality(speech, speech + noise, ["mel"])
    assert quality == Quality(mel_distance=mel_distance(speech, speech + noise, RATE))
    with pytest.raises(DependencyError, match="librosa"):
        measure_quality(speech, speech, ["f0"])


def test_pitch_survives_a_good_coder(opus, speech):
    pytest.importorskip("librosa")
    coded = run_opus(speech, np.zeros(0, bool), bit_rate=32000)
    errors = measure_quality(speech, coded.samples, ["f0"]).pitch
    assert errors.voiced > 30 and errors.rmse_cents < 60
    assert errors.gross_error < 0.05 and errors.voicing_error < 0.1 and errors.guess_error < 0.15


def test_words_are_those_that_the_recogniser_hears_in_what_was_decoded(opus):
    pytest.importorskip("jiwer")
    transcriber = make_transcriber()
    utterance = read_manifest(SPEECH / "manifest.jsonl")[0]
    result = evaluate_codec(None, [utterance], metrics=["wer"], transcriber=transcriber)
    heard = transcriber.transcribe(utterance.path).text
    assert heard and result.original_words == count_word_errors(utterance.text, heard)
    found = result.to_json()
    assert found["recogniser"] == "tiny"
    assert found["original_wer"] == pytest.approx(result.original_words.rate, abs=1e-5)
    assert found["packages"].keys() == {"jiwer", "av"}
    assert all(row["words"] == len(utterance.text.split()) for row in found["coders"])

    def same(samples: torch.Tensor, lost: np.ndarray) -> Coded:
        return Coded(samples, 0.0, 0.0)

    measured = Measurement([Coder(series="s", name="s", code=same)], ["wer"], transcriber)
    (score,) = measured.measure(utterance).scores
    assert score.words == result.original_words


def test_words_need_a_transcriber_and_texts_and_metrics_a_name(opus, tmp_path):
    pytest.importorskip("jiwer")
    silent = read_manifest(write_manifest(tmp_path, "a.wav"))
    with pytest.raises(ConfigError, match="'wer' needs a transcriber"):
        evaluate_codec(None, silent, metrics=["wer"])
    with pytest.raises(ConfigError, match="'wer' needs texts"):
        evaluate_codec(None, silent, metrics=["wer"], transcriber=make_transcriber())
    with pytest.raises(ConfigError, match="no metric 'mos': there are pesq, stoi"):
        evaluate_codec(None, silent, metrics=["mos"])


def test_several_jobs_measure_what_one_does(opus, folder, tmp_path):
    for name in ("river", "bread"):
        soundfile.write(tmp_path / f"{name}.wav", read_speech(name)[:RATE], RATE)
    utterances = read_manifest(write_manifest(tmp_path, "river.wav", "gone.wav", "bread.wav"))
    codec, done = LoadedCodec.load(folder), []
    one, two = (
        evaluate_codec(
            codec, utterances, metrics=["mel"], jobs=jobs, on_utterance=lambda: done.append(1)
        )
        for jobs in (1, 2)
    )
    assert (one.jobs, two.jobs, len(done)) == (1, 2, 6)
    assert one.failures.keys() == two.failures.keys() == {"gone"}
    for a, b in zip(one.scores, two.scores, strict=True):
        assert (a.key, a.coder, a.payload_bps) == (b.key, b.coder, b.payload_bps)
        assert a.quality.mel_distance == pytest.approx(b.quality.mel_distance, abs=1e-4)


def test_the_command_prints_pitch_and_words_where_they_are_asked_for(
    opus, folder, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("librosa")
    pytest.importorskip("jiwer")
    monkeypatch.setattr(Transcriber, "load", lambda name: make_transcriber())
    soundfile.write(tmp_path / "river.wav", read_speech()[: 2 * RATE], RATE)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"key": "r", "path": "river.wav", "text": "the river"}))
    command = ["evaluate", "codec", str(manifest), "--model", str(folder), "--groups", "4"]
    assert main([*command, "--metrics", "wer,f0", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    for heading in ("voicing %", "F0 cents", "gross %", "by YIN %", "WER %", "x orig."):
        assert heading in out
    assert "originals" in out and "WER by tiny" in out and "PESQ" not in out
