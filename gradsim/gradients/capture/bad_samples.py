"""Samples without a usable gradient: each error names the sample and the mend."""

from gradsim.errors import GradientError
from gradsim.gradients.capture.encoding import Encoded


class BadSampleError(GradientError):
    """A sample without an unmasked label, or whose loss or gradient is not finite."""


def bad_loss(sample: Encoded, loss: float) -> BadSampleError:
    """The loss is not finite."""
    return BadSampleError(f"sample {sample.id!r} has a loss of {loss}: {_MEND}")


def bad_gradient(sample: Encoded, layer: str) -> BadSampleError:
    """The gradient is not finite."""
    return BadSampleError(f"sample {sample.id!r} has a gradient that is not finite in layer {layer}: {_MEND}")


def no_label(sample: Encoded) -> BadSampleError:
    """There is nothing to take the mean over."""
    return BadSampleError(f"sample {sample.id!r} has no unmasked label after its first token: {_MEND}")


_MEND = 'mend or exclude it (on_bad_sample="exclude")'
