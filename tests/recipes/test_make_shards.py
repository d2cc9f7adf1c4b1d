"""Shards made of recordings and a table: what is kept, what is left out and why."""

import importlib
import json
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from audiossm.audio import open_audio, write_audio
from audiossm.manifest import read_manifest

RECIPE = Path(__file__).parents[2] / "recipes" / "transcribe"
TEXT = "A sentence of thirty letters, no?"  # spoken in 2 s
HASH = "0123456789abcdef" * 8


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(RECIPE)  # the tool's processes import it by name
    return importlib.import_module("make_shards")


def make_speech(before: float, speech: float, after: float, rate: int = 16000) -> np.ndarray:
    """Make (samples,) float32: seconds of faint noise, of a buzzing tone, of faint noise."""
    sizes = [round(seconds * rate) for seconds in (before, speech, after)]
    t = np.arange(sizes[1]) / rate
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(sum(sizes)) * 1e-4
    noise[sizes[0] : sizes[0] + sizes[1]] += 0.2 * buzz * (1 + 0.3 * np.sin(2 * np.pi * 4 * t))
    return noise.astype(np.float32)


def write_clip(path: Path, seconds: tuple[float, float, float] = (1, 2, 1), rate: int = 16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, make_speech(*seconds, rate)[None], rate)


def write_table(path: Path, *rows: str, tab: bool = True) -> Path:
    path.write_text("".join((row if tab else row.replace("\t", ",")) + "\n" for row in rows))
    return path


def write_held_out(path: Path, text: str, speaker: str) -> Path:
    row = {"key": "held-0", "path": "held.wav", "text": text, "speaker": speaker}
    path.write_text(json.dumps(row) + "\n")
    return path


def run(tool: ModuleType, folder: Path, *options: str, table: str = "table.tsv") -> int:
    origin = ["--name", "some", "--source", "made/up"]
    places = ["--table", str(folder / table), "--clips", str(folder / "clips")]
    # the options come last, so that they win
    return tool.main([*places, "--out", str(folder / "out"), *origin, *options])


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_manifest_and_the_shards_hold_what_was_kept(tool, tmp_path, monkeypatch, workers):
    rows = ["client_id\tpath\tsentence\tup_votes\tdown_votes"]
    for i in range(40):
        rate = (16000, 8000, 44100, 48000)[i % 4]
        write_clip(tmp_path / "clips" / f"{i}.wav", (1, 1.5 + i / 40, 0.7), rate)
        rows.append(f"speaker{i % 7}\t{i}.wav\t{TEXT}\t2\t{i % 2}")
    write_table(tmp_path / "table.tsv", *rows)
    monkeypatch.setattr(tool, "SHARD_BYTES", 40_960)
    assert run(tool, tmp_path, "--workers", workers, "--lang", "en-GB") == 0
    out = tmp_path / "out"
    shards = sorted(out.glob("*.tar"))
    assert len(shards) > 2 and all(shard.stat().st_size <= 40_960 for shard in shards)
    lines = read_rows(out / "some.jsonl")
    assert [line["key"] for line in lines] == [f"some-{i:05}" for i in range(40)]
    fields = {"text": TEXT, "source": "made/up", "lang": "en-GB"}
    for i, utterance in enumerate(read_manifest(out / "some.jsonl")):
        assert lines[i].items() >= {**fields, "speaker": f"cv_speaker{i % 7}"}.items()
        with open_audio(utterance.open()) as reader:
            assert (reader.sample_rate, reader.channels) == (16000, 1)
            audio = np.concatenate(list(reader.blocks(1 << 16)), axis=1)
        assert audio.shape[1] / 16000 == pytest.approx(utterance.seconds, abs=0.001)
        assert utterance.seconds == pytest.approx(0.8 + 1.5 + i / 40, abs=0.04)
    members = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            members += archive.getnames()
    assert members == [f"some-{i:05}.opus" for i in range(40)]


def test_a_run_is_repeated_byte_by_byte_whatever_the_workers(tool, tmp_path):
    for i in range(20):
        write_clip(tmp_path / "clips" / f"{i}.wav", (0.5, 2 + i / 40, 1))
    write_table(tmp_path / "table.tsv", "path\tsentence", *(f"{i}.wav\t{TEXT}" for i in range(20)))
    for workers in ("1", "2"):
        assert run(tool, tmp_path, "--out", str(tmp_path / workers), "--workers", workers) == 0
    for name in ("some.jsonl", "some-00.tar"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_what_is_left_out_is_counted_by_its_fault(tool, tmp_path, capsys):
    held = write_held_out(tmp_path / "held.jsonl", "It's HELD out", "cv_0123456789abcdef")
    texts = {
        "good": TEXT,
        "digits": "Thirty letters and 30 of them.",
        "foreign": "She said that ω is the last letter.",
        "empty": "?!",
        "held": "“It’s held-out!”",
        "short": "So few?",
        "long": TEXT * 2,
        "gone": TEXT,
        "broken": TEXT,
        "silent": TEXT,
    }
    for name in texts:
        write_clip(tmp_path / "clips" / f"{name}.wav")
    (tmp_path / "clips" / "gone.wav").unlink()
    (tmp_path / "clips" / "broken.wav").write_bytes(b"RIFF, or so it seems")
    write_audio(tmp_path / "clips" / "silent.wav", np.full((1, 32000), 1e-4, np.float32), 16000)
    rows = [f"abc\t{name}.wav\t{text}\t2\t1" for name, text in texts.items()]
    rows += [f"{HASH}\tgood.wav\t{TEXT}\t2\t0", f"abc\tgood.wav\t{TEXT}\t2\t2", "abc\tgood.wav"]
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes"
    write_table(tmp_path / "table.tsv", header, *rows)
    assert run(tool, tmp_path, "--held-out", str(held)) == 0
    printed = capsys.readouterr()
    expected = {
        f"1 clips, 0.00 h: in {tmp_path / 'out' / 'some.jsonl'}, 1 shards",
        "4 clips, 0.00 h: left out, no words, or digits or foreign letters among them",
        "1 clips, 0.00 h: left out, held-out text",
        "1 clips, 0.00 h: left out, held-out speaker",
        "1 clips, 0.00 h: left out, not more up-votes than down-votes",
        "1 clips, 0.00 h: left out, no such recording",
        "1 clips, 0.00 h: left out, can't be decoded",
        "3 clips, 0.00 h: left out, silence, or speech too fast or too slow for the text",
    }
    assert set(printed.out.splitlines()) == expected
    assert [row["text"] for row in read_rows(tmp_path / "out" / "some.jsonl")] == [TEXT]


def choose(tool: ModuleType, tmp_path: Path, *options: str, table: str) -> list:
    seen = []
    tool.pack, pack = lambda clips, args: seen.extend(clips), tool.pack
    try:
        assert run(tool, tmp_path, *options, table=table) == 0
    finally:
        tool.pack = pack
    return seen


def test_the_csv_of_2017_is_understood(tool, tmp_path, capsys):
    write_clip(tmp_path / "clips" / "sample-000000.wav")
    header = "filename,text,up_votes,down_votes,age,gender,accent,duration"
    rows = ['cv-valid-dev/sample-000000.wav,"be careful, said the ""stranger""",1,0,,,,']
    write_table(tmp_path / "table.csv", header, *rows)
    held = write_held_out(tmp_path / "held.jsonl", "something else", "cv_x")
    (clip,) = choose(tool, tmp_path, "--held-out", str(held), table="table.csv")
    assert clip.path == tmp_path / "clips" / "sample-000000.wav"
    assert (clip.text, clip.fault) == ('be careful, said the "stranger"', "")
    assert clip.speaker == "cv_cv-valid-dev/sample-000000"
    assert "the table has no speakers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"Dollar shops" sell the rest.', '"Dollar shops" sell the rest.'),
        ('"""Dollar shops"" sell the rest."', '"Dollar shops" sell the rest.'),
        ('"They sell the rest."', "They sell the rest."),
        ("They  sell\u2028the rest. ", "They sell the rest."),
    ],
)
def test_quotes_of_the_later_tsv_are_understood(tool, tmp_path, cell, text):
    write_clip(tmp_path / "clips" / "a.wav")
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tlocale"
    rows = [f"{HASH}\ta.wav\t{cell}\t2\t1\ten", f"me\ta.wav\t{TEXT}\t2\t1\ten"]
    write_table(tmp_path / "table.tsv", header, *rows)
    first, second = choose(tool, tmp_path, table="table.tsv")
    assert (first.text, first.speaker, first.fault) == (text, "cv_0123456789abcdef", "")
    assert (second.text, second.speaker, second.fault) == (TEXT, "cv_me", "")


def test_other_tables_name_their_columns(tool, tmp_path):
    write_clip(tmp_path / "clips" / "a" / "b.wav")
    write_table(tmp_path / "t.csv", "wav,words,who", "a/b.wav,Hello there,Ann", tab=False)
    columns = ["--path-column", "wav", "--text-column", "words", "--speaker-column", "who"]
    (clip,) = choose(tool, tmp_path, *columns, "--speaker-prefix", "x-", table="t.csv")
    assert clip == tool.Clip(tmp_path / "clips" / "a" / "b.wav", "Hello there", "x-Ann", "")


def test_bad_input_ends_in_one_line(tool, tmp_path, capsys):
    write_clip(tmp_path / "clips" / "a.wav")
    write_table(tmp_path / "bare.tsv", "path\tsentence")
    write_table(tmp_path / "lost.tsv", "path\tsentence", f"b.wav\t{TEXT}")
    write_table(tmp_path / "other.csv", "wav,words", "a.wav,Hello", tab=False)
    (tmp_path / "latin.csv").write_bytes(b"path,text\na.wav,Caf\xe9 noir\n")
    (tmp_path / "out").mkdir()
    for options, table, message in (
        ([], "none.tsv", "No such file"),
        ([], "latin.csv", "can't decode"),
        ([], "other.csv", "expected a column of each of"),
        (["--speaker-column", "who"], "lost.tsv", "expected a column of each of"),
        (["--held-out", str(tmp_path / "no.jsonl")], "lost.tsv", "can't read the manifest"),
        ([], "lost.tsv", "every clip was left out"),
        ([], "bare.tsv", "every clip was left out"),
    ):
        assert run(tool, tmp_path, *options, table=table) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, table
        assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out" / "some.jsonl").write_text("kept")
    assert run(tool, tmp_path, table="lost.tsv") == 1
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out" / "some.jsonl").read_text() == "kept"
    with pytest.raises(SystemExit, match="2"):
        run(tool, tmp_path, "--workers", "0", table="lost.tsv")
