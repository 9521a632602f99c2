"""Methods of no use but to tests: with something beside the student, and with what has to be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd.data.views.views import Labels
from kd.draws import uniform
from kd.methods.method import Batch, Facts, Method, Needs, Seen, Term
from kd.methods.soft_targets import soft_target_loss


class Banked(nn.Module):
    """A layer that is learned, with batch norm and dropout, and a bank with a row an image."""

    rows_NC: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.adapter = nn.Sequential(
            nn.Linear(facts.classes, facts.classes), nn.BatchNorm1d(facts.classes), nn.Dropout(0.2)
        )
        self.register_buffer("rows_NC", F.one_hot(facts.labels_N, facts.classes).float())


@dataclass(frozen=True, kw_only=True)
class WithBank(Method):
    """CE + KL(teacher || adapter(student)) + the distance to what the bank has of the image, which it then keeps."""

    name: ClassVar[str] = "with_bank"
    formula: ClassVar[str] = "CE + KL + distance"
    source: ClassVar[str] = "tests"
    needs: ClassVar[Needs] = Needs.LOGITS
    batch_coupled: ClassVar[bool] = True

    momentum: float = 0.5

    def beside(self, facts: Facts) -> nn.Module:
        return Banked(facts)

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        assert isinstance(beside, Banked)
        logits_BC = student.logits_BC.float()
        kept_BC = beside.rows_NC[batch.index_B]
        part = float(uniform(1, key=batch.key)[0])
        distance = (part * (logits_BC.softmax(dim=1) - kept_BC) ** 2).sum(dim=1).mean()
        with torch.no_grad():
            moved_BC = self.momentum * kept_BC + (1 - self.momentum) * teacher.logits_BC.float().softmax(dim=1)
            beside.rows_NC[batch.index_B] = moved_BC
        return {
            "ce": Term(0.5, batch.cross_entropy(student.logits_BC)),
            "adapted": Term(1.0, soft_target_loss(beside.adapter(logits_BC), teacher.logits_BC, temperature=2)),
            "bank": Term(2.0, distance),
        }


@dataclass(frozen=True, kw_only=True)
class OfEmbeddings(Method):
    """CE + the difference of the Gram matrices of embeddings, in the batch."""

    name: ClassVar[str] = "of_embeddings"
    formula: ClassVar[str] = "CE + w * mean (G_s - G_t)^2"
    source: ClassVar[str] = "tests"
    needs: ClassVar[Needs] = Needs.LOGITS | Needs.EMBEDDING
    batch_coupled: ClassVar[bool] = True

    weight: float = 3.0

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        def gram(embedding_BD: Tensor | None) -> Tensor:
            assert embedding_BD is not None
            rows_BD = F.normalize(embedding_BD.float(), dim=1)
            return rows_BD @ rows_BD.T

        difference_BB = gram(student.embedding_BD) - gram(teacher.embedding_BD)
        return {
            "ce": Term(1.0, batch.cross_entropy(student.logits_BC)),
            "gram": Term(self.weight, (difference_BB**2).mean()),
        }


@dataclass(frozen=True, kw_only=True)
class Smoothing(Method):
    """Cross-entropy with smoothed labels."""

    name: ClassVar[str] = "smoothing"
    formula: ClassVar[str] = "CE with smoothed labels"
    source: ClassVar[str] = "tests"
    needs: ClassVar[Needs] = Needs.NOTHING

    epsilon: float = 0.1

    def terms(self, student: Seen, teacher: Seen, batch: Batch, beside: nn.Module) -> dict[str, Term]:
        labels: Labels = batch.labels
        smoothed = F.cross_entropy(student.logits_BC.float(), labels.first_B, label_smoothing=self.epsilon)
        return {"smoothed": Term(1.0, smoothed)}
