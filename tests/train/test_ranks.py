"""A batch's rows are shared out, and random numbers are the same however many draw them."""

import pytest
import torch

from audiossm.errors import ConfigError
from audiossm.train.augment import augment_audio, mask_spectra, warp_spectra
from audiossm.train.ranks import ALONE, Ranks

CPU = torch.device("cpu")
THREE = [Ranks(number, 3) for number in range(3)]


def join_rows(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts, dim=1).flatten(0, 1)


def test_each_row_has_one_process():
    assert [ranks.own(range(6)) for ranks in THREE] == [
        range(0, 6, 3),
        range(1, 6, 3),
        range(2, 6, 3),
    ]
    x = torch.arange(12).view(6, 2)
    assert torch.equal(join_rows([ranks.own_rows(x) for ranks in THREE]), x)
    assert [ranks.part(6) for ranks in THREE] == [2, 2, 2]
    with pytest.raises(ConfigError, match="3 processes can't share 4 rows of a batch evenly"):
        THREE[0].part(4)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ranks, rows: ranks.rand(rows, 5, device=CPU),
        lambda ranks, rows: ranks.randn(rows, 5, device=CPU),
        lambda ranks, rows: ranks.randint(1000, rows, 5, device=CPU),
        lambda ranks, rows: ranks.uniform(-3.0, 4.0, rows, device=CPU),
    ],
)
def test_what_processes_draw_is_what_one_draws(draw):
    def drawn(ranks: Ranks, rows: int) -> torch.Tensor:
        torch.manual_seed(3)
        draw(ranks, rows)
        return draw(ranks, rows)

    assert torch.equal(join_rows([drawn(ranks, 2) for ranks in THREE]), drawn(ALONE, 6))


def test_rows_are_changed_as_one_process_would():
    audio, spectra = torch.randn(6, 8000) * 0.1, torch.randn(6, 20, 16)

    def change(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(4)
        heard = augment_audio(ranks.own_rows(audio), None, 1.0, ranks)
        seen = warp_spectra(ranks.own_rows(spectra), 0.2, ranks)
        return heard, mask_spectra(seen, 0.1, ranks)

    whole = change(ALONE)
    for parts, expected in zip(zip(*map(change, THREE), strict=True), whole, strict=True):
        torch.testing.assert_close(join_rows(list(parts)), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole[0], audio)


def test_what_is_drawn_apart_differs_and_disturbs_nobody():
    drawn, after = [], []
    for ranks in THREE:
        torch.manual_seed(5)
        with ranks.apart(CPU):
            drawn.append(torch.rand(4))
        after.append(torch.rand(4))
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
    assert all(torch.equal(after[0], numbers) for numbers in after)


def test_one_process_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.join("cpu")
    assert ranks.leads and ranks.count == 1 and ranks.device == "cpu"
    layer = torch.nn.Linear(2, 2)
    assert ranks.wrap(layer) is layer
    assert ranks.shares([3, 4]) == [1.0, 1.0] and ranks.agree(2.5) == 2.5
    x = torch.randn(3)
    assert torch.equal(ranks.mean(x), x) and ranks.gather({"x": x})["x"] is x
    before = x.clone()
    ranks.average_([x])
    assert ranks.whole(x) is x and torch.equal(x, before)
    ranks.leave()


def test_a_process_without_a_card_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="process 1 of this machine has no card of its own"):
        Ranks.join("cuda")
