"""Pictures of a codec beside Opus: quality over bit rate, and spectrograms to look at."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiossm.errors import AudioError, ManifestError, OutputError
from audiossm.evaluate.codec_scores import CodecEvaluation
from audiossm.evaluate.coders import Coder
from audiossm.evaluate.quality import SAMPLE_RATE
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import Utterance
from audiossm.pictures import load_pyplot

__all__ = ["MAX_CLIP_S", "draw_spectrograms", "plot_quality"]

MAX_CLIP_S = 4.0  # more, and pitch can't be made out any more
WINDOW, HOP = 512, 128
RANGE_DB = 70.0  # below the loudest of the original
PANELS = (("pesq_wb", "PESQ-WB (MOS-LQO)", 2), ("stoi", "STOI", 3))  # and digits


def plot_quality(evaluation: CodecEvaluation, out: Path) -> None:
    """Draw PESQ and STOI, those of them that were measured, over payload bit rate.

    Raises:
        DependencyError: matplotlib is not installed.
        OutputError: the picture can't be written.
    """
    pyplot = load_pyplot()
    means = {row.coder: row for row in evaluation.means}
    panels = [panel for panel in PANELS if any(getattr(m, panel[0]) for m in means.values())]
    figure, axes = pyplot.subplots(
        1, max(len(panels), 1), figsize=(5.5 * max(len(panels), 1), 4.2), layout="constrained"
    )
    for axis, (field, label, digits) in zip(
        [axes] if len(panels) < 2 else axes, panels, strict=False
    ):
        for name, coders in evaluation.series.items():
            points = sorted(
                (means[coder].payload_bps / 1000, value)
                for coder in coders
                if coder in means and (value := getattr(means[coder], field)) is not None
            )
            if not points:
                continue
            mark = "s" if name.startswith("libopus") else "o"
            line = "--" if "lost" in name else "-"
            axis.plot(*zip(*points, strict=True), mark + line, label=name)
            for x, y in points:
                axis.annotate(
                    f"{y:.{digits}f}",
                    (x, y),
                    (0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        axis.set_xscale("log")
        ticks = [0.5, 1, 2, 4, 6, 8, 12]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("payload, kbit/s")
        axis.set_ylabel(label)
        axis.margins(0.08, 0.12)
        axis.grid(alpha=0.3)
        axis.legend()
    files = len({score.key for score in evaluation.scores})
    figure.suptitle(f"{files} recordings, {evaluation.audio_s / 60:.1f} minutes")
    _save(pyplot, figure, out)


def draw_spectrograms(
    coders: Sequence[Coder], utterances: Sequence[Utterance], folder: Path
) -> dict[str, str]:
    """Draw a picture of each recording: the original, then what each coder makes of it.

    What is longer than 4 s is cut, to where it is loudest. Coders get it whole.

    Returns:
        why a recording has no picture, by its key.

    Raises:
        DependencyError: matplotlib is not installed.
        OutputError: a picture can't be written.
    """
    load_pyplot()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder}: can't make the folder: {exc.strerror or exc}") from exc
    failures = {}
    for number, utterance in enumerate(utterances, 1):
        try:
            samples = torch.from_numpy(read_recording(utterance).at_rate(SAMPLE_RATE))
        except (AudioError, ManifestError) as exc:
            failures[utterance.key] = str(exc)
            continue
        signals = {"original": samples}
        signals |= {coder.name: coder.run(samples, utterance.key).samples for coder in coders}
        start = find_loudest(samples, round(MAX_CLIP_S * SAMPLE_RATE))
        part = {
            name: x[start : start + round(MAX_CLIP_S * SAMPLE_RATE)] for name, x in signals.items()
        }
        name = re.sub(r"[^\w.-]+", "_", utterance.key)  # a key may be a path
        _draw_clip(part, utterance.key, start / SAMPLE_RATE, folder / f"{number:02d}-{name}.png")
    return failures


def find_loudest(samples: Tensor, size: int) -> int:
    """Return where the ``size`` samples of most energy begin, 0 for what is shorter."""
    if len(samples) <= size:
        return 0
    energy = torch.cat([samples.new_zeros(1).double(), samples.double().square().cumsum(0)])
    return int((energy[size:] - energy[:-size]).argmax())


def spectrogram(samples: Tensor) -> Tensor:
    """Return power in dB (257, frames) of (samples,)."""
    spectra = torch.stft(
        samples,
        WINDOW,
        HOP,
        window=torch.hann_window(WINDOW),
        pad_mode="constant",
        normalized=True,
        return_complex=True,
    )
    return 20 * spectra.abs().clamp(min=1e-7).log10()


def _draw_clip(signals: Mapping[str, Tensor], key: str, start_s: float, out: Path) -> None:
    pyplot = load_pyplot()
    num_columns = 2
    num_rows = -(-len(signals) // num_columns)
    figure, axes = pyplot.subplots(
        num_rows,
        num_columns,
        figsize=(15, 2.9 * num_rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    # down the columns: the original stands over what is ours, Opus beside it
    places = list(axes.T.flat)
    top = float(spectrogram(signals["original"]).max())
    for axis, (name, samples) in zip(places, signals.items(), strict=False):
        image = axis.imshow(
            spectrogram(samples).numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - RANGE_DB,
            vmax=top,
            extent=(start_s, start_s + len(samples) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        axis.set_title(name, fontsize=11)
    for axis in places[len(signals) :]:
        axis.axis("off")
    for column in axes.T:  # below the last picture of each
        last = [axis for axis in column if axis.images][-1:]
        for axis in last:
            axis.set_xlabel("s")
            axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB", shrink=0.6, aspect=40, pad=0.01)
    figure.suptitle(key)
    _save(pyplot, figure, out)


def _save(pyplot: Any, figure: Any, out: Path) -> None:
    try:
        figure.savefig(out, dpi=100)
    except OSError as exc:
        raise OutputError(f"{out}: can't write there: {exc.strerror or exc}") from exc
    except ValueError as exc:  # an ending that is no kind of picture
        raise OutputError(f"{out}: {exc}") from exc
    finally:
        pyplot.close(figure)
