"""Train a small convolutional network with PyTorch in a worker, and get the model back.

No `dependencies`: the worker uses this very environment, which needs torch and scikit-learn (for its digits).
Run it: ``python examples/torch_training/training.py``.
"""

from __future__ import annotations

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

from remote_exec import progress, remote


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 1,797 real handwritten digits as (images, labels), in a fixed random order."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


def network() -> nn.Module:
    """Return an untrained network."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 2 * 2, 10),
    )  # fmt: skip


@remote(keep_alive_period_in_seconds=600)
def train(
    images: torch.Tensor, labels: torch.Tensor, *, epochs: int, learning_rate: float = 2e-3
) -> nn.Module:
    """Train on a GPU if the worker has one, and return the model on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"training on {device}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    model = network().to(device)
    images, labels = images.to(device), labels.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for epoch in progress(range(1, epochs + 1), desc="epochs"):
        total = 0.0
        for batch in torch.randperm(len(labels), device=device).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: loss {total / len(labels):.4f}")
    return model.cpu()


def main() -> None:
    """Train, and measure the model here."""
    parser = argparse.ArgumentParser(description="Train a network elsewhere.")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    images, labels = digits()
    started = time.perf_counter()
    model = train(images[:1400], labels[:1400], epochs=arguments.epochs)
    print(
        f"{arguments.epochs} epochs took {time.perf_counter() - started:.1f} s, start and transfer included"
    )
    with torch.no_grad():
        right = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    print(f"accuracy of the model that came back: {right:.3f}")


if __name__ == "__main__":
    main()
