"""Registry of projection kinds by name; a new kind takes one class and one line here."""

from collections.abc import Mapping
from types import MappingProxyType

from gradsim.gradients.projection.kind import LayerProjection
from gradsim.gradients.projection.logra import Logra
from gradsim.gradients.projection.mask import Mask
from gradsim.gradients.projection.rademacher import Rademacher
from gradsim.gradients.projection.sjlt import Sjlt
from gradsim.gradients.projection.srht import Srht
from gradsim.gradients.projection.traker import Traker

KINDS: Mapping[str, type[LayerProjection]] = MappingProxyType(
    {
        "rademacher": Rademacher,
        "sjlt": Sjlt,
        "srht": Srht,
        "logra": Logra,
        "mask": Mask,
        "traker": Traker,
    }
)
