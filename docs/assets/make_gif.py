"""Draw the README's animated picture from the shipped masks of the app's first view: `make gif`.

Nothing is computed here: masks and pixel accuracies are those in `checkpoints/landing`.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from robviz.files.paths import bundled_path
from robviz.interactive.landing import FOLDER, LANDING_MODELS, samples
from robviz.models import Card
from robviz.results.records import Records

PHOTO = "chelsea"
COLOURS = {"ordinary": "#c75a0f", "robust": "#0072b2"}
#: The radii of the frames, in 1/255: slowly up to where the robust model breaks as well, and a stop where they differ.
RADII = [*np.arange(0, 4, 0.25), *[4.0] * 8, *np.arange(4, 8.5, 0.5), *[8.0] * 5]
MILLISECONDS = 130


def masks_and_accuracies(name: str) -> tuple[list[np.ndarray], list[float]]:
    """Read the masks of one model, each (H, W), and its pixel accuracies, one for each radius of the plan."""
    folder = bundled_path(FOLDER)
    cell = Records(folder, json.loads((folder / "plan.json").read_text(encoding="utf-8"))).read(f"{PHOTO}.{name}")
    assert cell is not None
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["masks"].split(",")[1]))))
    return np.split(strip, len(cell["accuracy"])), cell["accuracy"]


def blended(radii: list[float], values: list[np.ndarray], eps: float) -> np.ndarray:
    """Fade linearly between the values at the two neighbouring radii."""
    right = min(int(np.searchsorted(radii, eps)), len(radii) - 1)
    left = max(right - 1, 0)
    share = 0 if right == left else (eps - radii[left]) / (radii[right] - radii[left])
    return (1 - share) * values[left] + share * values[right]


def frame(
    eps: float, radii: list[float], photo: np.ndarray, models: dict[str, tuple[list, list[float]]]
) -> Image.Image:
    """Draw both masks over the photograph, and both curves with a mark at the radius."""
    figure = Figure(figsize=(7.2, 5.0), dpi=100, facecolor="#fafbfd")
    canvas = FigureCanvasAgg(figure)
    curve = figure.add_axes((0.07, 0.1, 0.9, 0.17))
    for column, (name, (overlays, accuracies)) in enumerate(models.items()):
        title, accent = LANDING_MODELS[name]
        accuracy = np.interp(eps, radii, accuracies)
        axes = figure.add_axes((0.02 + 0.49 * column, 0.4, 0.47, 0.5))
        axes.imshow(0.45 * photo + 0.55 * blended(radii, overlays, eps), aspect="auto")
        axes.axis("off")
        axes.text(0, 1.03, title, transform=axes.transAxes, color=COLOURS[accent], weight="bold", size=12)
        text = f"{100 * accuracy:.0f} % pixel accuracy"
        axes.text(1, 1.03, text, transform=axes.transAxes, color=COLOURS[accent], ha="right", size=12)
        curve.plot(radii, [100 * value for value in accuracies], color=COLOURS[accent], linewidth=2)
        curve.plot(eps, 100 * accuracy, "o", color=COLOURS[accent], markersize=7, markeredgecolor="white", zorder=3)
    curve.axvline(eps, color="#222b3a", linewidth=1)
    curve.set(xlim=(0, 8.2), ylim=(-4, 106), xticks=range(0, 9, 2), yticks=(0, 50, 100))
    curve.tick_params(labelsize=8, color="#888", labelcolor="#555")
    curve.spines[["top", "right"]].set_visible(False)
    figure.text(
        0.02,
        0.31,
        f"ε = {eps:.2g}/255: no pixel changes by more than {eps:.2g} of 255 grey levels",
        color="#222b3a",
        size=11,
    )
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def main(path: Path) -> None:
    """Write the animation as a GIF."""
    radii = json.loads((bundled_path(FOLDER) / "plan.json").read_text(encoding="utf-8"))["eps"]
    photo = samples()[PHOTO].image.mean(0).numpy()[..., None].repeat(3, 2)
    palette = np.asarray(Card.load(bundled_path("checkpoints") / f"{next(iter(LANDING_MODELS))}.json").palette) / 255
    models = {}
    for name in LANDING_MODELS:
        masks, accuracies = masks_and_accuracies(name)
        models[name] = [palette[mask] for mask in masks], accuracies
    drawn = {eps: frame(eps, radii, photo, models) for eps in sorted(set(RADII))}
    colours = drawn[4.0].quantize(96, method=Image.Quantize.MEDIANCUT)
    frames = [drawn[eps].quantize(palette=colours, dither=Image.Dither.NONE) for eps in RADII]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True)


if __name__ == "__main__":
    main(Path(__file__).parent / "slider.gif")
