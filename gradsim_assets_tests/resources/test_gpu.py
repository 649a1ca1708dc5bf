import polars as pl
import pytest

from gradsim.errors import TableError
from gradsim.study import HubModel, ModelConfiguration
from gradsim.tables import Provenance, Store, write_table
from resources.gpu import GPUResource

ONE_LAYER = pl.DataFrame({"layer": ["a"], "shape": [[2, 3]], "parameters": [6]})


@pytest.fixture
def hub_store(study, tmp_path):
    """The store of a study with a model from the Hub."""
    hub = study.model_copy(update={"model": HubModel(name="someone/some-model", revision="main")})
    return Store(tmp_path / "data", hub)


def test_a_reference_model_is_loaded_from_the_studys_folder(study, tmp_path):
    store = Store(tmp_path / "data", study)
    write_table(ONE_LAYER, store.path(store.lineage.key("model")), Provenance(revision="456def"))
    assert GPUResource(device="cuda:1").configuration(store) == ModelConfiguration(
        name=str(tmp_path / "data" / "tiny" / "model"),
        revision="456def",
        device="cuda:1",
        precision="float64",
        attention="eager",
    )


def test_a_hub_model_is_loaded_at_the_revision_that_the_tables_were_begun_with(hub_store):
    provenance = Provenance(model="someone/some-model", revision="0123abc")
    hub_store.write(hub_store.lineage.key("model"), ONE_LAYER, provenance=provenance)
    configuration = GPUResource().configuration(hub_store)
    assert (configuration.name, configuration.revision) == ("someone/some-model", "0123abc")
    assert (configuration.device, configuration.precision, configuration.attention) == ("auto", "float32", "sdpa")


def test_a_hub_model_without_its_table_is_an_error_that_names_the_file(hub_store, tmp_path):
    with pytest.raises(TableError, match="does not exist; create it with gradsim run") as error:
        hub_store.model_configuration()
    assert str(tmp_path / "data" / "tiny" / "model.parquet") in str(error.value)
