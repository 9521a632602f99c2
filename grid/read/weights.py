"""Weights a user gives: found and hashed where the grid is launched, kept on the storage as safetensors, from where
every worker starts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec

from grid.contract.files.publishing import publishing
from grid.errors import UserError, check_path
from grid.private import downloads_folder, private_folder
from grid.spec.model import ModelSpec
from grid.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor


def user_weights_file(checkpoint: str) -> Path:
    """The file of a path or URL, the latter downloaded once a machine and kept. Raises UserError."""
    path = _own_path(checkpoint)
    if path is not None:
        check_path("checkpoint", str(path))
        if not path.is_file():
            raise UserError(f"checkpoint {checkpoint}: no such file: {path.absolute()}")
        return path
    name = Path(urllib.parse.urlsplit(checkpoint).path).name
    downloads = private_folder(downloads_folder() / "checkpoints")
    target = downloads / hashlib.sha256(checkpoint.encode()).hexdigest()[:16] / name
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with publishing(target) as part:
                _download(checkpoint, part)
        except Exception as error:  # each protocol has exceptions of its own
            detail = " ".join(str(error).split())
            raise UserError(
                f"checkpoint {checkpoint}: cannot be downloaded: {detail}; download it by hand and give its path"
            ) from None
    return target


def read_user_weights(checkpoint: str) -> dict[str, Tensor]:
    """Its weights by name. Raises UserError."""
    from kd.checkpoint import CheckpointError
    from kd.models.weights import read_weights

    path = user_weights_file(checkpoint)
    # A copy of a URL's file may be what is wrong.
    what = f"checkpoint {checkpoint}" + ("" if _own_path(checkpoint) else f" (kept as {path})")
    try:
        return read_weights(path, what=what)
    except CheckpointError as error:
        raise UserError(str(error)) from None


def user_weights_sha256(checkpoint: str) -> str:
    """Of its weights, however the file holds them. Raises UserError."""
    from kd.checkpoint import state_dict_to_bytes

    return hashlib.sha256(state_dict_to_bytes(read_user_weights(checkpoint))).hexdigest()


def stored_user_weights(model: ModelSpec) -> str:
    """Where the storage keeps a model's checkpoint."""
    return f"checkpoints/{model.checkpoint_sha256}.safetensors"


def publish_user_weights(model: ModelSpec, store: Store) -> None:
    """Put a model's checkpoint on the storage, unless it is there and whole. Raises UserError where it is not what it
    was when the grid was read."""
    from kd.checkpoint import state_dict_to_bytes

    assert model.checkpoint is not None
    target = stored_user_weights(model)
    if store.exists(target) and _is(store.read(target), model):
        return
    data = state_dict_to_bytes(read_user_weights(model.checkpoint))
    if not _is(data, model):
        raise UserError(f"checkpoint {model.checkpoint}: not the weights that the grid was planned with: launch again")
    store.write(target, data)


def start_weights(model: ModelSpec, store: Store) -> dict[str, Tensor]:
    """What `publish_user_weights` put on the storage. Raises UserError where it is damaged."""
    import safetensors.torch

    data = store.read(stored_user_weights(model))
    if not _is(data, model):
        place = store.location(stored_user_weights(model))
        raise UserError(f"{place}: damaged: not the weights of its name; launch again to have it written anew")
    weights: dict[str, Tensor] = safetensors.torch.load(data)
    return weights


def _is(data: bytes, model: ModelSpec) -> bool:
    return hashlib.sha256(data).hexdigest() == model.checkpoint_sha256


def _own_path(checkpoint: str) -> Path | None:
    """The user's own file; None for one that is to be downloaded."""
    kind, mark, rest = checkpoint.partition("://")
    if mark and kind.lower() != "file":
        return None
    # As it is: a question mark begins no query here.
    return Path(os.path.expanduser(f"/{rest.partition('/')[2]}" if mark else checkpoint))


def _download(url: str, target: Path) -> None:
    announced = None
    with contextlib.ExitStack() as stack:
        if urllib.parse.urlsplit(url).scheme in ("http", "https"):
            source = stack.enter_context(urllib.request.urlopen(url, timeout=60))  # noqa: S310 (the user's own URL)
            announced = source.headers.get("Content-Length")
        else:
            source = stack.enter_context(fsspec.open(url, "rb"))
        with open(target, "wb") as file:
            shutil.copyfileobj(source, file, 2**20)
    size = target.stat().st_size
    if announced is not None and size != int(announced):
        raise OSError(f"cut off after {size} of {announced} bytes")
