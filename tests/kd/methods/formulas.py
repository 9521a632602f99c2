"""The methods' losses as their papers state them, in float64 NumPy: by name."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def softmax(logits_BC: Array, temperature: float = 1.0) -> Array:
    scaled_BC = logits_BC / temperature
    powers_BC = np.exp(scaled_BC - scaled_BC.max(axis=1, keepdims=True))
    return powers_BC / powers_BC.sum(axis=1, keepdims=True)


def cross_entropy(student_BC: Array, labels_B: Array) -> float:
    return float(-np.log(softmax(student_BC)[np.arange(len(labels_B)), labels_B]).mean())


def divergence(p: Array, q: Array) -> float:
    """KL(p || q), summed over the last axis, mean over the first."""
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def kd(
    student_BC: Array, teacher_BC: Array, labels_B: Array, *, progress: float, temperature: float, alpha: float
) -> float:
    """Hinton et al. 2015, section 2."""
    soft = temperature**2 * divergence(softmax(teacher_BC, temperature), softmax(student_BC, temperature))
    return alpha * soft + (1 - alpha) * cross_entropy(student_BC, labels_B)


def dkd(
    student_BC: Array,
    teacher_BC: Array,
    labels_B: Array,
    *,
    progress: float,
    temperature: float,
    alpha: float,
    beta: float,
    ce: float,
    warmup: float,
) -> float:
    """Zhao et al. 2022, eq. 7, image by image, and the warm-up of the authors' code."""
    target, others = [], []
    for p_C, q_C, label in zip(
        softmax(teacher_BC, temperature), softmax(student_BC, temperature), labels_B, strict=True
    ):
        p_O, q_O = np.delete(p_C, label), np.delete(q_C, label)
        target.append(divergence(np.array([[p_C[label], p_O.sum()]]), np.array([[q_C[label], q_O.sum()]])))
        others.append(divergence((p_O / p_O.sum())[None], (q_O / q_O.sum())[None]))
    taught = temperature**2 * (alpha * np.mean(target) + beta * np.mean(others))
    return float(ce * cross_entropy(student_BC, labels_B) + min(progress / warmup, 1) * taught)
