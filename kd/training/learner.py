"""What is trained: the student, and what a method learns beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd.draws import derive_seed
from kd.methods.method import Facts, Method, Seen


class Learner(nn.Module):
    """The student and what is learned or kept beside it, as one module: what DistributedDataParallel, torch.compile,
    the optimizer, clipping and a checkpoint are of. The average of weights, evaluation and the model that is published
    are of the student alone.

    The student's parameters come first, so that an optimizer numbers them alike whatever stands beside. The teacher is
    no part of it, nor of any module here: it is where targets come from.
    """

    def __init__(self, student: nn.Module, beside: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.beside = beside

    def forward(self, images_BCHW: Tensor) -> Seen:
        """The student's part, which runs under autocast; a method calls what stands beside where it computes its
        terms."""
        return Seen(self.student(images_BCHW))


def build_beside(method: Method, facts: Facts, *, seed: int) -> nn.Module:
    """On the CPU, drawn from a seed of its own: the student's weights are the baseline's, whatever stands beside."""
    torch.manual_seed(derive_seed("beside", seed))
    return method.beside(facts)
