"""Other libraries' models by name or folder: `torchvision/...`, `hf/<owner>/<name>`, `smp/<owner>/<name>`.

`LIBRARIES` has a row for each prefix, which `load_model` looks up. Downloads are kept: torchvision's weights in
robviz's cache, the hub's files in the cache of huggingface_hub, which other programs share. Code in a repository is
never run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from robviz.files.download import Listener
from robviz.files.progress import Bar
from robviz.models import from_smp, from_torchvision, from_transformers
from robviz.types import InputError

#: Where a repository keeps its weights: the first of these that it has. An index names the files of several parts.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
#: <owner>/<name>, as the hub allows it.
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LoadFolder = Callable[[Path, str, str], nn.Module]  # (folder, name, source)


def silent(received: int, total: int | None) -> None:
    """Do nothing with the progress."""


@dataclass(frozen=True)
class Library:
    """Describe one row of `LIBRARIES`.

    Attributes:
        package: The package that must be importable.
        extra: Its name for pip.
        example: A name, for the help.
        load: Opens a model by the part of its name after the prefix.
        is_here: Returns True if that needs no download.
    """

    package: str
    extra: str
    example: str
    load: Callable[[str, Listener], nn.Module]
    is_here: Callable[[str], bool]


def reporting(listener: Listener) -> type:
    """Return a subclass of tqdm, as huggingface_hub expects, that shows our progress bar and calls a listener."""
    from tqdm import tqdm  # which huggingface_hub requires

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, desc: str | None = None, **options: Any) -> None:
            options.pop("name", None)  # of huggingface_hub's own bars
            super().__init__(*arguments, **options | {"disable": True})
            self.bar = Bar(desc or "downloading", self.whole, "bytes", done=int(self.n), stays=False)

        @property
        def whole(self) -> int | None:
            return None if self.total is None else int(self.total)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            self.bar.total = self.whole
            self.bar.advance(int(n or 0))
            listener(int(self.n), self.whole)

        def close(self) -> None:
            self.bar.close()

    return Reporting


def repository(name: str, listener: Listener = silent, is_offline: bool = False) -> Path:
    """Return the folder with configuration and weights of a repository on the hub, downloaded if necessary.

    Args:
        name: `<owner>/<name>`. The environment variable `HF_ENDPOINT` names another host than the hub.
        listener: Called with the bytes of each file.
        is_offline: Use what is in the cache, without any connection.

    Returns:
        The folder.

    Raises:
        InputError: If the repository does not exist, needs permission, or cannot be reached.
    """
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise InputError(f"a model on the hub is named <owner>/<name>, got {name!r}")
    try:
        return fetched(Files(name, listener, is_offline))
    except InputError:
        raise
    except GatedRepoError as error:
        raise InputError(
            f"{name} needs its owner's permission: ask for it on its page, then run `hf auth login`"
        ) from error
    except (OSError, EntryNotFoundError, ValueError, KeyError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot download {name} from the hub: {said}") from error


@dataclass(frozen=True)
class Files:
    """List the files of a repository on the hub."""

    name: str
    listener: Listener
    is_offline: bool

    def get(self, file: str, revision: str | None = None) -> Path:
        """Return one file, downloaded if necessary; raises what huggingface_hub raises."""
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                self.name,
                file,
                revision=revision,
                local_files_only=self.is_offline,
                endpoint=os.environ.get("HF_ENDPOINT"),
                tqdm_class=reporting(self.listener),
            )
        )

    def first_of(self, files: tuple[str, ...], revision: str) -> Path | None:
        """Return the first of some files that the repository has, or None if it has none."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for file in files:
            try:
                return self.get(file, revision)
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError) and not self.is_offline:
                    raise  # the hub cannot be reached
        return None


def fetched(files: Files) -> Path:
    """Return the folder of a repository's configuration, image processor and weights, all of one commit."""
    folder = files.get("config.json").parent
    files.first_of(("preprocessor_config.json",), folder.name)
    weights = files.first_of(WEIGHTS, folder.name)
    if weights is None:
        raise InputError(f"{files.name} has no weights that robviz can open; expected one of {', '.join(WEIGHTS)}")
    if weights.suffix == ".json":
        for part in sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values())):
            files.get(part, folder.name)
    return folder


def is_cached(name: str) -> bool:
    """Return True if a repository of the hub opens without a download."""
    try:
        repository(name, is_offline=True)
    except InputError:
        return False
    return True


def from_hub(prefix: str, load: LoadFolder) -> Callable[[str, Listener], nn.Module]:
    """Return a function that opens a repository, from the cache if it is complete there, and otherwise downloaded."""

    def opened(name: str, listener: Listener) -> nn.Module:
        folder = repository(name, is_offline=True) if is_cached(name) else repository(name, listener)
        return load(folder, f"{prefix}/{name}", f"https://huggingface.co/{name}, commit {folder.name}")

    return opened


def torchvision_model(name: str, listener: Listener) -> nn.Module:
    """Download one of torchvision's models if necessary, and open it."""
    from_torchvision.download(name, listener)
    return from_torchvision.load(name)


HF_EXTRA, SMP_EXTRA = "robviz[transformers]", "robviz[smp]"
#: prefix -> library. To add a library, write its file and add its row.
LIBRARIES: dict[str, Library] = {
    "torchvision": Library(
        "torchvision",
        "torchvision",
        "torchvision/deeplabv3_resnet50",
        torchvision_model,
        from_torchvision.is_here,
    ),
    "hf": Library(
        "transformers",
        HF_EXTRA,
        "hf/nvidia/segformer-b0-finetuned-ade-512-512",
        from_hub("hf", from_transformers.load),
        is_cached,
    ),
    "smp": Library(
        "segmentation_models_pytorch",
        SMP_EXTRA,
        "smp/smp-hub/segformer-b0-512x512-ade-160k",
        from_hub("smp", from_smp.load),
        is_cached,
    ),
}
#: A key of config.json that says which library wrote it.
WRITTEN_BY = {"_model_class": ("smp", from_smp.load), "model_type": ("hf", from_transformers.load)}


def examples() -> str:
    """Return examples of the names of other libraries' models, for a sentence."""
    return ", ".join(library.example for library in LIBRARIES.values())


def library_of(name: str) -> Library | None:
    """Return the row of a name's prefix, or None if it has none."""
    return LIBRARIES.get(name.partition("/")[0]) if "/" in name else None


def require(library: Library) -> None:
    """Raise InputError, saying what to install, unless the library is there."""
    if find_spec(library.package) is None:
        raise InputError(f"{library.example} and the like need {library.package}; run: pip install '{library.extra}'")


def holds_model(folder: Path) -> bool:
    """Return True if a folder is a model that transformers or segmentation_models_pytorch has saved."""
    return folder.is_dir() and (folder / "config.json").is_file()


def load_folder(folder: Path) -> nn.Module:
    """Open the model that transformers or segmentation_models_pytorch has saved in a folder.

    Raises InputError if it contains neither, or if the library is missing.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be read: {error}") from error
    for key, (prefix, load) in WRITTEN_BY.items():
        if key in config:
            require(LIBRARIES[prefix])
            return load(folder, folder.name, f"{LIBRARIES[prefix].package}, the folder {folder.name}")
    raise InputError(f"{folder / 'config.json'} has none of {', '.join(WRITTEN_BY)}: which library saved it?")


def load(name: str, listener: Listener = silent) -> nn.Module:
    """Open another library's model by its name with prefix, downloaded on the first call and kept.

    Args:
        name: A name such as `torchvision/deeplabv3_resnet50`, `hf/<owner>/<name>` or `smp/<owner>/<name>`.
        listener: Called with the bytes received so far and, if known, those of the file.

    Returns:
        The model, frozen and in eval mode, with a card. The preprocessing of its library is part of it.

    Raises:
        InputError: For an unknown name, a library that is not installed, or a failed download.
    """
    library = library_of(name)
    if library is None:
        raise InputError(f"unknown library in {name!r}; names look like {examples()}")
    require(library)
    return library.load(name.partition("/")[2], listener)


def is_here(name: str) -> bool:
    """Return True if a name with prefix opens now: its library is installed, and no download is needed."""
    library = library_of(name)
    return library is not None and find_spec(library.package) is not None and library.is_here(name.partition("/")[2])
