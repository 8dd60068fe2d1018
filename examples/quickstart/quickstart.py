"""Train a classifier of handwritten digits somewhere else, and use the model here.

This process needs nothing but remote_exec: scikit-learn and matplotlib live in environments that are built
for the functions that ask for them. Run it: ``python examples/quickstart/quickstart.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from remote_exec import progress, remote

VALUES_OF_C = [0.01, 0.1, 1.0, 10.0]

# An image of 8 x 8 pixels, drawn by hand: which digit is it?
DRAWING = """
..####..
.##..##.
.....##.
....##..
...##...
..##....
.##.....
.######.
"""


@dataclass(frozen=True)
class Model:
    """What training leaves: plain numbers, which work where there is no scikit-learn."""

    C: float
    accuracy: float
    seconds: float
    process: int
    weights: list[list[float]]  # a row of 64 for each digit
    biases: list[float]

    def predict(self, pixels: list[float]) -> int:
        """Return the digit that 64 pixels between 0 and 1 show."""
        scores = [
            bias + sum(weight * pixel for weight, pixel in zip(row, pixels, strict=True))
            for row, bias in zip(self.weights, self.biases, strict=True)
        ]
        return scores.index(max(scores))


@remote(dependencies=["scikit-learn"], keep_alive_period_in_seconds=600)
def train(C: float, epochs: int = 40) -> Model:  # noqa: N803 - what it is called everywhere
    """Train on scikit-learn's digits data set: 1,797 real handwritten digits."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import train_test_split

    started = time.perf_counter()
    pixels, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        pixels / 16, digits, test_size=0.25, random_state=0, stratify=digits
    )
    classifier = SGDClassifier(loss="log_loss", alpha=1 / (C * len(x)), random_state=0)
    for epoch in progress(range(1, epochs + 1), desc=f"C={C:g}"):
        classifier.partial_fit(x, y, classes=range(10))
        if epoch % 10 == 0:
            print(f"C={C:g}: epoch {epoch}, accuracy {classifier.score(x_test, y_test):.3f}")
    return Model(
        C=C,
        accuracy=float(classifier.score(x_test, y_test)),
        seconds=time.perf_counter() - started,
        process=os.getpid(),
        weights=classifier.coef_.tolist(),
        biases=classifier.intercept_.tolist(),
    )


@remote(dependencies=["matplotlib"])
def plot(models: list[Model]) -> bytes:
    """Draw accuracy over C, and what the best model looks for in each digit; return a PNG."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = max(models, key=lambda model: model.accuracy)
    figure, axes = pyplot.subplots(3, 5, figsize=(8, 5.5), layout="constrained")
    curve = figure.add_subplot(axes[0, 0].get_gridspec()[0, :])
    for axis in axes[0]:
        axis.remove()
    curve.semilogx([model.C for model in models], [model.accuracy for model in models], "o-")
    curve.set(
        xlabel="C", ylabel="accuracy", title=f"digits: best accuracy {best.accuracy:.3f} at C={best.C:g}"
    )
    for digit, axis in enumerate(axes[1:].flat):
        weights = best.weights[digit]
        axis.imshow([weights[i : i + 8] for i in range(0, 64, 8)], cmap="RdBu")
        axis.set_title(str(digit), fontsize=9)
        axis.set_axis_off()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


@remote(dependencies=["scikit-learn"], keep_alive_period_in_seconds=600)
def where() -> str:
    """Tell where this runs."""
    import sklearn

    return f"process {os.getpid()}, scikit-learn {sklearn.__version__}"


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description="Train a digits classifier elsewhere.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"))
    arguments = parser.parse_args()

    print(f"here: process {os.getpid()}. The first call builds an environment with scikit-learn, once.")
    models = list(train.starmap((C, arguments.epochs) for C in VALUES_OF_C))

    print("\n      C   accuracy   seconds   process")
    for model in models:
        print(f"{model.C:7g}   {model.accuracy:8.3f}   {model.seconds:7.2f}   {model.process:7d}")

    best = max(models, key=lambda model: model.accuracy)
    pixels = [float(pixel == "#") for line in DRAWING.split() for pixel in line]
    print(f"\nThe best model, used here without scikit-learn:\n{DRAWING}is a {best.predict(pixels)}.\n")

    if not arguments.no_plot:
        arguments.output.write_bytes(plot(models))
        print(f"The plot, drawn in another environment: {arguments.output}")

    print(f"there: {where()}")
    times: list[float] = []
    for _ in range(200):
        started = time.perf_counter()
        where()
        times.append(time.perf_counter() - started)
    print(f"A warm call takes {statistics.median(times) * 1e6:.0f} µs.")


if __name__ == "__main__":
    main()
