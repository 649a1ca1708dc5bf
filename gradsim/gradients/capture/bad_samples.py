"""Errors for samples without a usable gradient; each names the sample and the fix."""

from gradsim.errors import GradientError
from gradsim.gradients.capture.encoding import Encoded


class BadSampleError(GradientError):
    """Error for a sample without an unmasked label, or with a non-finite loss or gradient."""


def bad_loss(sample: Encoded, loss: float) -> BadSampleError:
    """Return the error for a non-finite loss."""
    return BadSampleError(f"sample {sample.id!r} has a loss of {loss}: {_FIX}")


def bad_gradient(sample: Encoded, layer: str) -> BadSampleError:
    """Return the error for a non-finite gradient."""
    return BadSampleError(f"sample {sample.id!r} has a gradient that is not finite in layer {layer}: {_FIX}")


def no_label(sample: Encoded) -> BadSampleError:
    """Return the error for a sample without an unmasked label."""
    return BadSampleError(f"sample {sample.id!r} has no unmasked label after its first token: {_FIX}")


_FIX = 'fix or exclude it (on_bad_sample="exclude")'
