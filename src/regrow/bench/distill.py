"""Fine-tuning with the dense network as a teacher."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from regrow.core.errors import RegrowError


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Distance of the student's softened answers from the teacher's, as a scalar.

    `T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over samples; T^2 keeps gradients
    of the size that they have at T = 1 (Hinton, Vinyals and Dean 2015, section 2).

    Args:
        student: logits `(B, classes, ...)`.
        teacher: logits of the same shape, without gradient.
        temperature: T > 0.

    Raises:
        RegrowError: the outputs are no logits of one shape.
    """
    for outputs in (student, teacher):
        if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape != student.shape:
            raise RegrowError(
                "training.distillation needs networks that return one tensor of logits "
                "(B, classes); set it to 0 for this task."
            )
    # Half precision would lose what the softened probabilities are about.
    found = log_softmax(student.float() / temperature, 1)
    wanted = log_softmax(teacher.float() / temperature, 1)
    return temperature**2 * kl_div(found, wanted, reduction="none", log_target=True).sum(1).mean()
