"""What is shipped stays small: it is in every clone for ever."""

from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[1] / "assets"


def bytes_of(*names: str) -> int:
    paths = [path for name in names for path in (ASSETS / name).rglob("*")]
    return sum(path.stat().st_size for path in paths if path.is_file())


@pytest.mark.parametrize(
    ("most", "names"),
    [
        (9_500_000, ["models/first-frames"]),  # its weights 9 MB, and graphs
        (20_000_000, ["models/first-light"]),
        (15_000_000, ["lm", "lexicon", "models/first-sounds"]),
        (1_000_000, ["lexicon"]),
        (1_500_000, ["models/first-sounds"]),
        (4_000_000, ["models/first-draft"]),
        (16_000_000, ["models/first-words"]),
        (64_000_000, ["."]),
    ],
)
def test_assets_have_room_left(most, names):
    assert 0 < bytes_of(*names) <= most


def test_the_codecs_weights_are_nine_megabytes():
    assert (ASSETS / "models" / "first-frames" / "model.safetensors").stat().st_size <= 9_000_000
