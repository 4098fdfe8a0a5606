"""Clean and adversarial training of segmentation models (paper, section 4), and the recipes for it.

`run` follows a recipe from its initial weights to a checkpoint with its card. It may be stopped at any moment and
resumed, and spread over processes and machines by `torchrun` or `accelerate launch`. The loss curve stays the same: to
the last digit after an interruption, and within rounding over several processes. Exceptions are dropout, and batch norm
on CPUs, which see fewer images per process; on GPUs, batch norm is synchronised. `train` is the loop behind it, a
generator of its own progress.
"""

from __future__ import annotations

from robviz.finetune.follow import run
from robviz.finetune.images import TrainingImages
from robviz.finetune.loop import Progress, train
from robviz.finetune.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Progress", "Recipe", "TrainingImages", "run", "train"]
