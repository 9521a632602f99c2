"""Weights a user gives: found and hashed where the grid is launched, kept on the storage as safetensors, from where
every worker starts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import fsspec

from grid.errors import UserError
from grid.spec.model import ModelSpec
from grid.store import Store


def checkpoint_file(checkpoint: str) -> Path:
    """The file of a path or URL, the latter downloaded once a machine. Raises UserError."""
    if "://" not in checkpoint:
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            raise UserError(f"checkpoint {checkpoint}: no such file: {path.absolute()}")
        return path
    name = Path(urllib.parse.urlsplit(checkpoint).path).name
    target = _downloads() / hashlib.sha256(checkpoint.encode()).hexdigest()[:16] / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{uuid.uuid4().hex[:8]}.part")
        try:
            _download(checkpoint, part)
            part.replace(target)
        except Exception as error:  # each protocol has exceptions of its own
            detail = " ".join(str(error).split())
            raise UserError(
                f"checkpoint {checkpoint}: cannot be downloaded: {detail}; download it by hand and give its path"
            ) from None
        finally:
            part.unlink(missing_ok=True)
    return target


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_checkpoint(model: ModelSpec) -> str:
    """Where the storage keeps a model's checkpoint."""
    return f"checkpoints/{model.checkpoint_sha256}.safetensors"


def publish_checkpoint(model: ModelSpec, store: Store) -> None:
    """Put a model's checkpoint on the storage, unless it is there. Raises UserError where its file is not what it was
    when the grid was read, and CheckpointError where it holds no weights."""
    import safetensors.torch

    from kd.models.weights import read_weights

    assert model.checkpoint is not None
    target = stored_checkpoint(model)
    if store.exists(target):
        return
    path = checkpoint_file(model.checkpoint)
    if file_sha256(path) != model.checkpoint_sha256:
        raise UserError(f"checkpoint {path}: not the file that the grid was planned with: launch again")
    state = read_weights(path, what=f"checkpoint {path}")
    store.write(target, safetensors.torch.save({k: v.clone().contiguous() for k, v in state.items()}))


def _downloads() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kd-grid" / "checkpoints"


def _download(url: str, target: Path) -> None:
    with contextlib.ExitStack() as stack:
        if urllib.parse.urlsplit(url).scheme in ("http", "https"):
            source = stack.enter_context(urllib.request.urlopen(url, timeout=60))  # noqa: S310 (the user's own URL)
        else:
            source = stack.enter_context(fsspec.open(url, "rb"))
        with open(target, "wb") as file:
            shutil.copyfileobj(source, file, 2**20)
