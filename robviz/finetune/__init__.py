"""Clean and adversarial training of segmentation models (paper, section 4), and the recipes for it.

`run` follows a recipe from its initial weights to a checkpoint with its card. It may be killed at any moment and
started again, and spread over processes and machines by `torchrun` or `accelerate launch`: the loss curve stays the
same, to the last digit after a kill, within rounding over processes. (Not so where dropout or batch norm see fewer
images at a time; on GPUs, batch norm is synchronised.) `train` is the loop behind it, a generator of its own progress.
"""

from __future__ import annotations

from robviz.finetune.images import TrainingImages
from robviz.finetune.loop import Progress, train
from robviz.finetune.recipes import RECIPES, Recipe
from robviz.finetune.run import run

__all__ = ["RECIPES", "Progress", "Recipe", "TrainingImages", "run", "train"]
