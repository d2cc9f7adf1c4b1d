"""To what the commands of the recipes' pages are cut, so that they take seconds on a CPU."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

USE = "docs/recipes.md"


class Cut(NamedTuple):
    """A command of a page, cut to seconds.

    Attributes:
        recipe: whose it is.
        page: where it stands.
        words: that tell it from the page's others, all of them words of the command.
        more: options behind it; the last one of a name counts.
        swaps: what stands there and what is written instead, whole names.
        makes: files and folders that must be there afterwards.
        tells: what the command must write.
    """

    recipe: str
    page: str
    words: str
    more: str = ""
    swaps: Mapping[str, str] = {}
    makes: Sequence[str] = ()
    tells: str = ""


def recipe(name: str) -> str:
    """Return the page of a recipe."""
    return f"recipes/{name}/README.md"


TRAIN = "--workers 1 --set train.steps=2 --set train.log_every=1"
HEARD = f"{TRAIN} --set data.rows=2 --set data.row_s=6.0 --set data.speeds=[1.0]"
TALK = (
    "--workers 1 --set train.log_every=1 --set data.rows=4 --set data.row_frames=96 "
    "--set data.dev_share=0.3 --set data.dev_batches=1 --set data.voice_frames=100"
)
SECOND = "second_stage.steps=2 second_stage.crop_rows=2 second_stage.long_rows=1 data.dev_rows=2"
TOYS = {
    "DIR": "prepared",
    "OUT": "prepared",
    "MANIFEST.jsonl": "prepared/dev.jsonl",
    "[...]": '["train"]',
}
SPEAKER = {"runs/try-generator/model": "runs/talk/model"}
CODEC = {"runs/try-codec/codec": "runs/second/codec"}
CUTS = (
    Cut("prepare", USE, "audiossm prepare", "--workers 1 --dev 0.3", makes=["prepared/data.toml"]),
    # the recogniser
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/make_phones.py",
        swaps={"DIR": "by-espeak", "train-librispeech": "train", "...": ""},
        makes=["by-espeak/phones.json"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/train.py --out runs/one",
        HEARD,
        makes=["runs/one/model", "runs/one/log.jsonl"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "audiossm evaluate --model runs/one/model",
        "--limit 1",
        {"eval-librispeech-clean-200": "dev"},
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/train.py --codec first-frames --out runs/two",
        HEARD,
        makes=["runs/two/model"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/fine_tune.toml --out runs/mine",
        f"{HEARD} --models 2",
        makes=["runs/mine/model"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "torchrun recipes/transcribe/train.py",
        f"{HEARD} --set data.rows=4 --out runs/by-two",
        {"MODEL": "first-frames"},
        ["runs/by-two/model"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/ablate.py --out runs/arms --compile",
        f"{HEARD} --steps 1 --arms rank1",
        makes=["runs/arms/arms.jsonl"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/refit_letters.py",
        "--passes 1",
        {"eight/model": "runs/two/model"},
        ["fitted"],
    ),
    Cut(
        "transcribe",
        recipe("transcribe"),
        "recipes/transcribe/average.py",
        swaps={"longer/model": "runs/two/model", "against/model": "fitted"},
        makes=["mean"],
    ),
    Cut("transcribe", USE, "transcribe --scores before.jsonl", "--limit 2", makes=["before.jsonl"]),
    Cut("transcribe", USE, "transcribe --against before.jsonl", "--limit 2"),
    Cut("transcribe", USE, "transcribe recordings", makes=["texts"]),
    # the codec
    Cut(
        "codec",
        recipe("codec"),
        "recipes/codec/train.py --data --out runs/one",
        f"{TRAIN} --set data.crop_rows=2 --set data.long_rows=1 --set data.dev_rows=2",
        {"runs/one": "runs/first"},
        ["runs/first/codec", "runs/first/sample.wav"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "recipes/codec/train.py --recogniser new",
        "--smoke --workers 1 --set train.steps=2",
        makes=["runs/both/codec", "runs/both/recogniser"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "recipes/codec/train_decoder.py --init first-frames --out runs/second",
        "--workers 1 --set " + SECOND.replace(" ", " --set "),
        {"first-frames": "runs/first/codec"},
        ["runs/second/codec"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "recipes/codec/shrink.py runs/third/codec",
        swaps={"runs/third": "runs/second"},
        makes=["runs/second/small"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "audiossm evaluate codec --plot",
        "--limit 1 --jobs 1",
        {"runs/one/codec": "runs/second/codec"},
        ["quality.png", "seen"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "audiossm evaluate codec-streaming",
        "--limit 1",
        {"runs/one/codec": "runs/second/codec"},
    ),
    Cut(
        "codec",
        recipe("codec"),
        "torchrun recipes/codec/train.py",
        "--smoke --workers 1 --set train.steps=2 --set data.long_rows=2 --out runs/by-two-codecs",
        makes=["runs/by-two-codecs/codec"],
    ),
    Cut(
        "codec",
        recipe("codec"),
        "torchrun recipes/codec/train_decoder.py",
        "--smoke --workers 1 --set second_stage.steps=2 --set second_stage.long_rows=2 "
        "--out runs/by-two-decoders",
        {"MODEL": "runs/by-two-codecs/codec"},
        ["runs/by-two-decoders/codec"],
    ),
    Cut("codec", USE, "codec encode", swaps=CODEC, makes=["talk.ssma"]),
    Cut("codec", USE, "codec decode", swaps=CODEC, makes=["talk-again.wav"]),
    # the generator
    Cut(
        "generate",
        recipe("generate"),
        "recipes/generate/time_scripts.py",
        "--workers 1 --hops 20000",
        {"NAME": "train", "...": ""},
        ["prepared/said.jsonl"],
    ),
    Cut(
        "generate",
        recipe("generate"),
        "recipes/generate/train.py --out runs/talk",
        f"{TALK} --set train.steps=2",
        makes=["runs/talk/model", "runs/talk/voices.safetensors"],
    ),
    Cut("generate", recipe("generate"), "recipes/generate/make_voices.py runs/talk/model"),
    Cut(
        "generate",
        recipe("generate"),
        "recipes/generate/hold_out.py",
    ),
    Cut(
        "generate",
        recipe("generate"),
        "recipes/generate/ablate.py --out runs/arms",
        f"{TALK} --steps 1 --arms delay depth",
        {"runs/arms": "runs/other-talk"},
        ["runs/other-talk/arms.jsonl"],
    ),
    Cut(
        "generate",
        recipe("generate"),
        "audiossm export runs/talk/model",
        makes=["runs/talk/model/graphs"],
    ),
    Cut("generate", USE, "generate -o kettle.wav", swaps=SPEAKER, makes=["kettle.wav"]),
    Cut("generate", USE, "generate --prompt", swaps=SPEAKER, makes=["more.wav"]),
    # the language model
    Cut(
        "lm",
        recipe("lm"),
        "recipes/lm/read_books.py",
        swaps={"BOOKS": "books", "FILE": "prepared/dev.jsonl", "...": ""},
        makes=["books.txt"],
    ),
    Cut(
        "lm",
        recipe("lm"),
        "recipes/lm/make_ngrams.py books.txt",
        "--least 1 --min-count 1 --spelled 20",
        {
            "modern.txt": "tests/text/sentences.txt",
            "train-misc.jsonl": "prepared/train.jsonl",
            "assets/lm/books": "runs/books",
        },
        ["runs/books/ngrams.safetensors"],
    ),
    Cut(
        "lm",
        recipe("lm"),
        "recipes/lm/train.py --out runs/lm",
        "--set train.steps=2 --set train.rows=4 --set train.row_pieces=64 --set train.log_every=1 "
        "--set data.num_pieces=200 --set data.min_count=1 --set data.held_out=20",
        {"lm_text.txt.xz": "books.txt"},
        ["runs/lm/model", "runs/lm/held-out.txt"],
    ),
    Cut(
        "lm",
        recipe("lm"),
        "recipes/lm/make_ngrams.py same-text.safetensors",
        "--least 1 --min-count 1",
        {"lm_text-without-held-out.txt": "books.txt"},
        ["same-text.safetensors"],
    ),
    Cut("lm", recipe("lm"), "recipes/lm/rescore.py perplexity"),
    # complex states
    Cut(
        "periodicity",
        recipe("periodicity"),
        "recipes/periodicity/make_pitch.py",
        "--minutes 0.3 0.1 --train train",
        makes=["pitch.npz"],
    ),
    Cut(
        "periodicity",
        recipe("periodicity"),
        "recipes/periodicity/train.py --out runs/periodicity",
        "--smoke --tasks parity speech --arms published still --seeds 0",
        makes=["runs/periodicity/parity-still.jsonl", "runs/periodicity/speech-published.jsonl"],
    ),
    Cut(
        "periodicity",
        recipe("periodicity"),
        "recipes/periodicity/train.py --out runs/parity",
        "--set tasks.parity.steps=20 --seeds 0",
        makes=["runs/parity/parity-still.jsonl"],
    ),
    Cut(
        "periodicity",
        recipe("periodicity"),
        "recipes/periodicity/make_table.py runs/0",
        swaps={"runs/0": "runs/periodicity", "runs/1": "", "runs/2": "", "runs/brackets": "runs/p"},
        makes=["runs/p/table.md"],
    ),
    # how words sound
    Cut(
        "pronounce",
        recipe("pronounce"),
        "recipes/transcribe/make_lexicon.py",
        swaps={"lm_text.txt.xz": "tests/text/sentences.txt", "train-*": "prepared/train"},
        makes=["prepared/pronunciations.txt.xz"],
    ),
    Cut(
        "pronounce",
        recipe("pronounce"),
        "recipes/pronounce/train.py --out runs/sounds",
        "--set data.test=20 --set data.rare=20 --set data.dev=20 --set train.steps=2 "
        "--set train.batch=16 --set train.log_every=1",
        makes=["runs/sounds/model", "runs/sounds/held-out.txt"],
    ),
    Cut("pronounce", recipe("pronounce"), "audiossm evaluate pronounce"),
    Cut("pronounce", recipe("pronounce"), "recipes/pronounce/baseline.py"),
    Cut("pronounce", "README.md", "audiossm pronounce", "--model runs/sounds/model"),
    # the writer
    Cut(
        "text",
        recipe("text"),
        "recipes/text/train.py --out runs/text --data",
        """--set 'data.sentences="sentences.txt"' --set data.test=20 --set data.dev=20 """
        "--set data.num_words=300 --set train.steps=2 --set train.rows=4 --set train.log_every=1",
        {"DIR": "tests/text"},
        ["runs/text/model", "runs/text/held-out.txt"],
    ),
    Cut("text", recipe("text"), "audiossm evaluate writing"),
    # the service
    Cut("service", USE, "audiossm serve --speaker", "--capacity 2", SPEAKER),
    Cut("service", USE, "audiossm stream talk.flac", tells="The river was high"),
    Cut("service", USE, "audiossm generate --server", makes=["served.wav"]),
)
