"""A classifier as one ONNX file, checked against the module it came from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

# Of the logits' largest magnitude, at least 1: float32 sums in another order.
TOLERANCE = 1e-4
TRACED, CHECKED = 2, 3  # images: the second number shows that the first was not built in

INPUT, OUTPUT = "images", "logits"
PACKAGES = ("onnx", "onnxscript")


class OnnxError(ValueError):
    """The file cannot be written, or is not the model; the message says why."""


@dataclass(frozen=True)
class OnnxFacts:
    opset: int
    """Of the default domain."""
    difference: float
    """The largest of a logit on random input, ONNX against torch."""
    runtime: str
    """What ran the file."""


def missing_packages() -> list[str]:
    """What `write_onnx` needs and is not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def write_onnx(model: nn.Module, path: Path, *, input_size: tuple[int, int, int]) -> OnnxFacts:
    """Write the model, on the CPU and in eval mode: input `images`, float32 [batch, *input_size], output `logits`, the
    batch's size free, the weights inside.

    Raises OnnxError where the exporter, onnx's checker or a comparison with the module refuses, or where one of the
    packages is there and cannot be imported (from the ImportError).
    """
    try:
        import onnx

        with _quiet():
            exported = torch.onnx.export(
                model,
                (torch.randn(TRACED, *input_size),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            assert exported is not None
            proto = exported.model_proto
        for graph in (proto.graph, *proto.functions):
            _forget_paths(graph)
        onnx.save(proto, str(path))
        onnx.checker.check_model(str(path), full_check=True)
        runtime, logits = _run(path, input_size)
    except Exception as error:  # exporter, checker and runtime each have exceptions of their own
        path.unlink(missing_ok=True)
        raise OnnxError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
    with torch.inference_mode():
        expected = model(torch.from_numpy(_random(input_size))).numpy()
    difference = float(np.abs(logits - expected).max()) if logits.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        path.unlink(missing_ok=True)
        raise OnnxError(f"its logits are not torch's on random input: they differ by {difference:g}")
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    return OnnxFacts(opset=opset, difference=difference, runtime=runtime)


def _random(input_size: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((CHECKED, *input_size), dtype=np.float32)


def _run(path: Path, input_size: tuple[int, int, int]) -> tuple[str, np.ndarray]:
    """By onnxruntime where it is installed, or else by onnx's own slow reference."""
    feed = {INPUT: _random(input_size)}
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return f"onnxruntime {onnxruntime.__version__}", session.run([OUTPUT], feed)[0]
    import onnx
    from onnx.reference import ReferenceEvaluator

    return f"onnx {onnx.__version__}'s reference", np.asarray(ReferenceEvaluator(str(path)).run([OUTPUT], feed)[0])


def _forget_paths(graph: Any) -> None:
    """Take out the notes of the exporter: the stack traces among them name this machine's folders."""
    for part in (graph, *graph.node, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _forget_paths(inner)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own progress and advice stay off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
