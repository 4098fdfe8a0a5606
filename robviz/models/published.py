"""Open the published checkpoints by name: they are downloaded on first use, then kept in the cache as safetensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from robviz.datasets.labels import read_table
from robviz.files.atomic import write_atomically
from robviz.files.download import Listener, fetch
from robviz.files.paths import cache_folder
from robviz.models.architectures import build, load_checkpoint
from robviz.models.card import Card
from robviz.models.checkpoints import state_of
from robviz.types import InputError

HOST = "https://nc.mlcloud.uni-tuebingen.de"
PAPER = "Croce, Singh and Hein, arXiv:2306.12941"
REVISITING_AT = "Singh, Croce and Hein, arXiv:2303.01870"


@dataclass(frozen=True)
class Published:
    """Describe one row: what a checkpoint is, where it can be downloaded, and the figures of its authors."""

    architecture: str  # of the model, or of the models that a backbone is for
    dataset: str
    url: str
    file: str  # its name in the cache, for users who put it there by hand
    source: str
    metrics: dict[str, Any]
    sha256: str | None = None  # of the file; if it is unknown, the first download decides


def pirat(architecture: str, dataset: str, share: str, file: str, epochs: int, *miou: float) -> Published:
    """Describe a model of the paper; miou: in per cent, clean, under SEA at 4/255 and at 8/255."""
    clean, sea_4, sea_8 = (round(value / 100, 3) for value in miou)
    return Published(
        architecture,
        dataset,
        f"{HOST}/index.php/s/{share}/download",
        file,
        f"{PAPER}, PIR-AT, 5 steps, {epochs} epochs",
        {"val": {"clean_miou": clean, "sea_miou_4_255": sea_4, "sea_miou_8_255": sea_8}, "reported_by": PAPER},
    )


def robust(architecture: str, share: str, file: str, clean: float, attacked: float) -> Published:
    """Describe an ImageNet backbone with its top-1 accuracy in per cent, clean and under AutoAttack at 4/255."""
    return Published(
        architecture,
        "imagenet",
        f"{HOST}/public.php/dav/files/{share}/{file}",
        file,
        REVISITING_AT,
        {"clean_accuracy": clean / 100, "autoattack_accuracy": attacked / 100, "reported_by": REVISITING_AT},
    )


TINY, SMALL, VIT = "upernet-convnext-t-cvst", "upernet-convnext-s-cvst", "segmenter-vit-s"
#: What `load_model` downloads. To add a checkpoint, add its row.
CHECKPOINTS: dict[str, Published] = {
    "voc-upernet-convnext-t-pirat": pirat(
        TINY, "voc", "zSFgoAngcm47FZm", "UperNet_ConvNext_T_VOC.pth", 50, 75.2, 64.9, 34.6
    ),
    "voc-upernet-convnext-s-pirat": pirat(
        SMALL, "voc", "MBXnMd5QKztmZaa", "UperNet_ConvNext_S_VOC.pth", 50, 76.6, 66.0, 36.4
    ),
    "ade20k-upernet-convnext-t-pirat": pirat(
        TINY, "ade20k", "ACMQRiyfyXboXwT", "UperNet_ConvNext_T_ADE.pth", 128, 31.7, 17.2, 4.9
    ),
    "ade20k-upernet-convnext-s-pirat": pirat(
        SMALL, "ade20k", "Smogk2BWbfMxkyo", "UperNet_ConvNext_S_ADE.pth", 128, 32.1, 17.9, 5.4
    ),
    "ade20k-segmenter-vit-s-pirat": pirat(
        VIT, "ade20k", "XF6Woa9G3eiGPig", "Segmenter_vit_s_robust.pth", 128, 28.7, 14.9, 5.3
    ),
}
#: Robust ImageNet classifiers that adversarial trainings start from.
BACKBONES: dict[str, Published] = {
    "imagenet-convnext-t-cvst-robust": robust(TINY, "BFLoMrMdn8iBk7Y", "convnext_tiny_cvst_robust.pt", 72.7, 49.5),
    "imagenet-convnext-s-cvst-robust": robust(SMALL, "m3bAwNg4CJY4jrp", "convnext_s_cvst_robust.pt", 74.1, 52.4),
    "imagenet-vit-s-robust": robust(VIT, "XLLnoCnJxp74Zqn", "weights_vit_s.pt", 69.2, 44.0),
}


def published_row(name: str) -> Published:
    """Return the row of a name; raises InputError for an unknown name."""
    rows = {**CHECKPOINTS, **BACKBONES}
    if name not in rows:
        raise InputError(f"unknown checkpoint {name!r}; choose from: {', '.join(rows)}")
    return rows[name]


def cached_path(name: str) -> Path:
    """Return the path of a published checkpoint's tensors once it is downloaded."""
    return cache_folder() / "checkpoints" / f"{name}.safetensors"


def is_here(name: str) -> bool:
    """Return True if a checkpoint opens without a download: it is in the cache, or its file was put there by hand."""
    path = cached_path(name)
    return path.exists() or path.with_name(published_row(name).file).exists()


def labels(dataset: str) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Return classes and palette of a dataset, whose files need not be on this machine."""
    table = read_table(dataset)
    return table["classes"], table["palette"]


def card(name: str) -> Card:
    """Return the card of a published model; its source includes the SHA-256 of the file once that is known."""
    row = CHECKPOINTS[name]
    digest = row.sha256 or sums(name).get(row.file, "unknown")
    source = f"{row.source}; {row.url}; SHA-256 {digest}"
    return Card(name, row.architecture, row.dataset, *labels(row.dataset), source, row.metrics)


def download(name: str, listener: Listener = lambda received, total: None) -> Path:
    """Download a published checkpoint into the cache, on the first call.

    The file is downloaded whole, loaded without executing any code in it, written as safetensors and deleted. A file
    that was put into the cache by hand is used instead. Its SHA-256 must be the published one or, if there is none, the
    one of the first download. The safetensors file is verified in full against its own SHA-256 every time.

    Args:
        name: A key of `CHECKPOINTS` or `BACKBONES`.
        listener: Called with the bytes received so far and, if known, their total.

    Returns:
        The path of the `.safetensors` file.

    Raises:
        InputError: If any of this fails; the message says what to do.
    """
    row, path = published_row(name), cached_path(name)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():  # otherwise another process was faster
                    add(name, row, path, listener)
        verify(name)
    except (OSError, SafetensorError) as error:  # this is how safetensors reports a full disk
        raise InputError(f"cannot use the cache ({error}); make room there or set ROBVIZ_CACHE to a folder") from error
    return path


def add(name: str, row: Published, path: Path, listener: Listener) -> None:
    """Download the file unless it is there, check it, write its tensors to `path`, and delete it."""
    file, part = path.with_name(row.file), path.with_suffix(".part")
    was_put_there = file.exists()
    if not was_put_there:
        fetch(row.url, file, listener)
    try:
        digest = sha256(file)
        check_sha256(name, row, digest)
        save_file(tensors_of(name, row, file), part)
    except InputError as error:
        if was_put_there:
            raise InputError(f"{file} was put there by hand and should be replaced: {error}") from error
        file.unlink()
        raise InputError(f"{row.url} gave a file that was refused and deleted: {error}") from error
    # The sums come first: whoever finds the tensors also finds their sums.
    write_atomically(sums_path(name), f"{digest}  {row.file}\n{sha256(part)}  {path.name}\n")
    part.replace(path)
    file.unlink()


def check_sha256(name: str, row: Published, digest: str) -> None:
    """Raise InputError unless a file's SHA-256 is the published one or, without one, that of the first download."""
    expected = row.sha256 or sums(name).get(row.file, digest)
    if digest != expected:
        advice = "" if row.sha256 else f"; if its authors replaced it, delete {sums_path(name)}"
        raise InputError(f"expected the SHA-256 {expected} for {row.file}, got {digest}{advice}")


def tensors_of(name: str, row: Published, file: Path) -> dict[str, Tensor]:
    """Select the tensors to keep: a model's under robviz's keys, a backbone's under its own."""
    if name in CHECKPOINTS:
        model = build(row.architecture, len(labels(row.dataset)[0]))
        state = load_checkpoint(model, file).state_dict()
    else:
        state = state_of(file)
    return {key: value.contiguous() for key, value in state.items()}


def verify(name: str) -> None:
    """Raise InputError unless the file in the cache has the bytes that were written."""
    path = cached_path(name)
    if sha256(path) != sums(name).get(path.name):
        raise InputError(f"{path} is corrupted (SHA-256 mismatch); delete it and it will be downloaded again")


def sums_path(name: str) -> Path:
    """Return the file that keeps the SHA-256 of a checkpoint in the cache."""
    return cached_path(name).with_suffix(".sha256")


def sums(name: str) -> dict[str, str]:
    """Return SHA-256 by file name: of a checkpoint's file when it was first seen, and of its tensors in the cache."""
    path = sums_path(name)
    if not path.exists():
        return {}
    lines = (line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines())
    return {file: digest for digest, _, file in lines}


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
