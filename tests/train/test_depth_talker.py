"""A generator with a depth head, in training: what each group may know."""

import pytest
import torch

from audiossm.train.depth_talker import DepthTalker
from audiossm.train.run import Run
from toy_recital import CONFIG, FRAMES, GROUPS, NONE, make_recital


def test_a_group_is_guessed_from_the_frames_before_it_and_the_groups_before_it():
    torch.manual_seed(0)
    talker, recital = DepthTalker(CONFIG, 3).eval(), make_recital()
    seen: list[torch.Tensor] = []
    depth = talker.depth.forward
    talker.depth.forward = lambda x, rows: seen.append(depth(x, rows)) or seen[-1]  # type: ignore
    talker(recital)
    for frame in range(FRAMES):
        for group in range(GROUPS):
            codes = recital.codes.clone()
            codes[0, frame, group] = (codes[0, frame, group] + 1) % NONE
            talker(recital._replace(codes=codes))
            same = (seen[-1] == seen[0]).all(-1)
            assert same[1].all() and same[0, :frame].all()
            assert same[0, frame].tolist() == [other <= group for other in range(GROUPS)]
            if frame + 1 < FRAMES:
                assert not same[0, frame + 1].any()


def test_its_losses_are_means_over_what_there_is():
    talker, recital = DepthTalker(CONFIG, 3).eval(), make_recital()
    losses = talker(recital)
    assert losses.shape == (GROUPS + 1,) and losses.isfinite().all()
    # the second row's last frames have no codes, and all of its units' ends count nothing
    changed = recital._replace(age=recital.age.clone())
    changed.age[1, -1] += 3
    torch.testing.assert_close(talker(changed), losses)


def test_it_learns():
    torch.manual_seed(0)
    talker, recital = DepthTalker(CONFIG, 3), make_recital()
    run = Run(talker, talker, lr=1e-2, weight_decay=0.0, ema=0.5, betas=(0.9, 0.98))
    first = talker(recital).tolist()
    for _ in range(40):
        run.advance(talker(recital).sum(), 1e-2, 1.0)
    last = talker(recital).tolist()
    assert all(late < 0.5 * early for early, late in zip(first[:-1], last[:-1], strict=True))
    # logits of variance 1 cost half a nat more than none
    assert first[0] == pytest.approx(torch.tensor(float(NONE)).log().item() + 0.5, abs=0.8)
