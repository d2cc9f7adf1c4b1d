"""New layers stand evenly between old ones, as copies of those in front that add nothing."""

import pytest
import torch

from audiossm.train.deepen import deepen


@pytest.mark.parametrize(
    ("before", "after", "source"), [(2, 5, "00011"), (8, 12, "001223445667"), (3, 3, "012")]
)
def test_new_layers_follow_old_ones(before, after, source):
    weights = {"head.weight": torch.ones(2)}
    for i in range(before):
        for name in ("mixer.in_proj.weight", "mixer.out_proj.weight", "mlp.fc2.weight"):
            weights[f"layers.{i}.{name}"] = torch.full((2,), float(i + 1))
    deeper = deepen(weights, before, after)
    assert len(deeper) == 1 + 3 * after and torch.equal(deeper["head.weight"], torch.ones(2))
    for at, old in enumerate(map(int, source)):
        assert deeper[f"layers.{at}.mixer.in_proj.weight"][0] == old + 1
        new = at > 0 and source[at - 1] == source[at]
        for name in ("mixer.out_proj.weight", "mlp.fc2.weight"):
            assert deeper[f"layers.{at}.{name}"][0] == (0 if new else old + 1)
