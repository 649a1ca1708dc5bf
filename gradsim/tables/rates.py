"""Measured rates of devices, stored in `<root>/<study>/rates.json`: one entry per site, device and precision."""

from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gradsim import __version__, models
from gradsim.gradients.planning.rates import Rates
from gradsim.tables import Store
from gradsim.tables.files import atomic_path
from gradsim.tables.provenance import now


class MeasuredRates(BaseModel):
    """Result of `gradsim plan --measure`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    site: str | None = Field(None, description="cluster and queue; None: this machine")
    device: str = Field(description="name of the device, see `device_name`")
    precision: str
    operations_per_second: float = Field(gt=0, allow_inf_nan=False)
    bytes_per_second: float = Field(gt=0, allow_inf_nan=False)
    memory_budget: int | None = Field(None, description="bytes available to a cluster job besides the model")
    measured: str = Field(default_factory=now)
    versions: dict[str, str] = Field(
        default_factory=lambda: {
            "gradsim": __version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
        }
    )

    @property
    def rates(self) -> Rates:
        """Rates for predictions."""
        return Rates(self.operations_per_second, self.bytes_per_second)


_File = TypeAdapter(list[MeasuredRates])


def read_rates(store: Store, device: str, precision: str) -> MeasuredRates | None:
    """Return the rates of a local device (cpu or cuda:N); None if not measured or if the file is damaged."""
    return _found(store, None, precision, models.device_name(device))


def read_site_rates(store: Store, site: str, precision: str) -> MeasuredRates | None:
    """Return the most recently measured rates of a cluster; None if not measured or if the file is damaged."""
    return _found(store, site, precision)


def write_rates(store: Store, measured: MeasuredRates) -> Path:
    """Store rates, replacing earlier ones of the same site, device and precision.

    Returns:
        The path of the file.

    Raises:
        TableError: the data root is not writable.
    """
    of_here = (measured.site, measured.device, measured.precision)
    others = [each for each in _stored(store) if (each.site, each.device, each.precision) != of_here]
    path = _path(store)
    with atomic_path(path) as partial:
        partial.write_bytes(_File.dump_json([*others, measured], indent=2))
    return path


def _path(store: Store) -> Path:
    return store.root / store.study.name / "rates.json"


def _found(store: Store, site: str | None, precision: str, device: str | None = None) -> MeasuredRates | None:
    """Return the most recent matching rates."""
    found = [each for each in _stored(store) if (each.site, each.precision) == (site, precision)]
    return next((each for each in reversed(found) if device in {None, each.device}), None)


def _stored(store: Store) -> list[MeasuredRates]:
    try:
        return _File.validate_json(_path(store).read_bytes())
    except (OSError, ValidationError):
        return []
