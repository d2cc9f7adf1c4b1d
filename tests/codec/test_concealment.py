"""Lost frames: what takes their place, in pieces as whole."""

import torch

from audiossm.codec.concealment import FADE, ConcealmentState, conceal

START = ConcealmentState(torch.zeros(2, 3))


def test_a_lost_frame_is_the_one_before_it_a_little_weaker():
    latents = torch.randn(2, 5, 3)
    lost = torch.tensor([[False, True, True, False, True], [False, False, True, False, False]])
    before = latents.clone()
    filled, state = conceal(latents, lost, START)
    assert torch.equal(latents, before)
    expected = latents.clone()
    expected[0, 1], expected[0, 2] = FADE * latents[0, 0], FADE * FADE * latents[0, 0]
    expected[0, 4], expected[1, 2] = FADE * latents[0, 3], FADE * latents[1, 1]
    torch.testing.assert_close(filled, expected)
    assert torch.equal(state.latent, filled[:, -1])


def test_pieces_conceal_as_the_whole():
    latents, lost = torch.randn(2, 12, 3), torch.rand(2, 12) < 0.5
    whole, end = conceal(latents, lost, START)
    state, pieces = START, []
    for part, gone in zip(latents.split([1, 4, 7], 1), lost.split([1, 4, 7], 1), strict=True):
        filled, state = conceal(part, gone, state)
        pieces.append(filled)
    assert torch.equal(torch.cat(pieces, 1), whole) and torch.equal(state.latent, end.latent)


def test_what_a_lost_frame_holds_does_not_matter_and_nothing_is_changed_without_loss():
    latents, lost = torch.randn(2, 6, 3), torch.tensor([[True, False] * 3] * 2)
    other = torch.where(lost.unsqueeze(-1), torch.nan, latents)
    assert torch.equal(conceal(other, lost, START)[0], conceal(latents, lost, START)[0])
    for none_lost in (None, torch.zeros_like(lost)):
        filled, state = conceal(latents, none_lost, START)
        assert torch.equal(filled, latents) and torch.equal(state.latent, latents[:, -1])
    assert conceal(latents, lost, START)[0][:, 0].eq(0).all()  # nothing was heard before
