"""What says how well a hop of a recording looks like a symbol: Gaussians, or a small network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MARGIN", "Judge", "fit_gaussians", "train_network"]

# features (hops, mels) of a whole corpus, places (n,) in it: log-likelihoods (n, symbols), each
# but for a number that is the same for all symbols
Judge = Callable[[Tensor, Tensor], Tensor]

MARGIN = 5  # hops around a place that are looked at, too
NUM_CEPSTRA = 13
RELIANCE = 200.0  # hops as which all symbols' common covariance counts
HIDDEN = 320


def fit_gaussians(features: Tensor, places: Tensor, labels: Tensor, num_symbols: int) -> Judge:
    """Fit a Gaussian to each symbol: of cepstra and their first and second slopes.

    Args:
        features: (hops, mels) log-mel energies; ``MARGIN`` hops before and after each place.
        places: (n,) hops in ``features``.
        labels: (n,) the symbol of each.
        num_symbols: one without labels is a bit like them all.
    """
    counts = torch.bincount(labels, minlength=num_symbols)
    order = labels.argsort()
    x = torch.cat([slope(features, part) for part in torch.split(places[order], 1 << 20)])
    means, spreads = [], []
    for part in torch.split(x, counts.tolist()):
        means.append((part if len(part) else x).mean(0))
        spreads.append((part - means[-1]).T @ (part - means[-1]))
    spread = torch.stack(spreads)
    common = spread.sum(0) / len(labels)
    covariance = (spread + RELIANCE * common) / (counts.view(-1, 1, 1) + RELIANCE)
    factor = torch.linalg.cholesky(covariance.double())
    sizes = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1).float()
    whiten = torch.linalg.inv(factor).float()

    def judge(features: Tensor, places: Tensor) -> Tensor:
        x = slope(features, places)
        liked = x.new_empty(len(x), num_symbols)
        for symbol in range(num_symbols):
            distance = (x - means[symbol]) @ whiten[symbol].T
            liked[:, symbol] = -0.5 * distance.square().sum(-1) - sizes[symbol]
        return liked

    return judge


def slope(features: Tensor, places: Tensor) -> Tensor:
    """Return cepstra and their first and second slopes at places (n, 3 * NUM_CEPSTRA), float32."""
    mels = features.shape[1]
    middle = torch.arange(mels, device=features.device) + 0.5
    waves = torch.arange(NUM_CEPSTRA, device=features.device)
    cosines = torch.cos(torch.pi / mels * torch.outer(middle, waves)) / mels**0.5
    line = torch.arange(-2.0, 3.0, device=features.device) / 10
    around = torch.arange(-4, 5, device=features.device)
    x = features[places.unsqueeze(1) + around].float() @ cosines  # (n, 9, cepstra)
    first = torch.einsum("ntkc,k->ntc", torch.stack([x[:, i : i + 5] for i in range(5)], 2), line)
    second = torch.einsum("ntc,t->nc", first, line)
    return torch.cat([x[:, 4], first[:, 2], second], dim=1)


def train_network(
    features: Tensor, places: Tensor, labels: Tensor, num_symbols: int, most: int
) -> Judge:
    """Train a network that tells the symbols apart, on each hop six times, ``most`` in all.

    Its probabilities are divided by how often each symbol is. Arguments are ``fit_gaussians``'s.
    """
    device = features.device
    counts = torch.bincount(labels, minlength=num_symbols).float() + 10
    prior = (counts / counts.sum()).log()
    around = torch.arange(-MARGIN, MARGIN + 1, device=device)
    network = nn.Sequential(
        nn.Linear(len(around) * features.shape[1], HIDDEN),
        nn.GELU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.GELU(),
        nn.Linear(HIDDEN, num_symbols),
    ).to(device)

    def see(features: Tensor, places: Tensor) -> Tensor:
        seen = features[places.unsqueeze(1) + around].flatten(1).float()
        logits: Tensor = network(seen)
        return logits

    size = 8192 if features.is_cuda else 512
    steps = min(6 * len(places), most) // size + 1
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    for _ in range(steps):
        chosen = torch.randint(len(places), (size,), device=device)
        loss = F.cross_entropy(see(features, places[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()

    @torch.no_grad()
    def judge(features: Tensor, places: Tensor) -> Tensor:
        return see(features, places).log_softmax(-1) - prior

    return judge
