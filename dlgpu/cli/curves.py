"""The curves of training runs, in a picture."""

from typing import Any

import numpy as np

TRAIN, TEST = "#1f77b4", "#d95f02"


def draw(results: Any, path: str) -> None:
    """Loss and score of every run, epoch by epoch, on train and test data, to a .png file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    results = [result for result in results if result.history.epoch]
    layout = ConstrainedLayoutEngine(hspace=0.06, wspace=0.04, w_pad=0.1, h_pad=0.06)
    figure = Figure(figsize=(9, 0.3 + 2.4 * len(results)), layout=layout)
    FigureCanvasAgg(figure)
    for result, (left, right) in zip(results, figure.subplots(len(results), 2, squeeze=False)):
        history = result.history.history
        score = next(name for name in history if name != "loss" and not name.startswith("val_"))
        _curves(left, result.history, "loss")
        _curves(right, result.history, score)
        _plain_log_scale(left)
        left.set_title(f"{result.name} on {result.data.name}", loc="left", fontweight="bold")
        left.legend(frameon=False)
        right.set_title(f"test {result.score}", loc="left", fontsize="medium")
    left.set_xlabel("epoch")
    right.set_xlabel("epoch")
    figure.savefig(path, dpi=120)


def _curves(axes: Any, history: Any, name: str) -> None:
    epochs = np.array(history.epoch) + 1
    for key, color, label in ((name, TRAIN, "train"), (f"val_{name}", TEST, "test")):
        axes.plot(epochs, history.history[key], color=color, label=label, marker="o" if len(epochs) == 1 else "")
    axes.set_ylabel({"rmse": "RMSE"}.get(name, name))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _plain_log_scale(axes: Any) -> None:
    """A logarithmic axis whose ticks read 0.1, 0.2, 0.5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
