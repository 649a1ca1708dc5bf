"""An asset check against the original open-instruct code, if its submodule is checked out."""

import dagster as dg

from gradsim import dataset, models
from gradsim.dataset.turns import kind_of
from gradsim.tables import Lineage
from gradsim_assets.keys import asset_key
from resources.failing import failing_plainly
from resources.storage import StorageResource


def tokenization_check(lineage: Lineage) -> dg.AssetChecksDefinition:
    """Return the check that the originals' token ids and labels agree with open-instruct."""

    @dg.asset_check(
        name="agrees_with_open_instruct",
        asset=asset_key(lineage.key("tokenized")),
        description="Token ids and labels agree with the open-instruct submodule. Skipped if it is not checked out.",
    )
    @failing_plainly()
    def agrees_with_open_instruct(storage: StorageResource) -> dg.AssetCheckResult:
        open_instruct = dataset.open_instruct
        processor = open_instruct.processor_path()
        if not processor.is_file():
            return _not_compared("the submodule is not checked out (git submodule update --init)")
        store = storage.store(lineage.study)
        tokenized = store.read(lineage.key("tokenized"))
        originals = store.read(lineage.key("samples")).join(tokenized, on="id", how="semi", maintain_order="left")
        if any(kind_of(messages) != "conversations" for messages in originals["messages"].head(1).to_list()):
            return _not_compared("the samples are no conversations")
        tokenizer = models.RunningModel(store.model_configuration()).tokenizer
        theirs = open_instruct.tokenize(originals["messages"].to_list(), tokenizer, processor)
        ours = tokenized.select(open_instruct.COLUMNS).iter_rows(named=True)
        differing = [sample for sample, our, their in zip(tokenized["id"], ours, theirs, strict=True) if our != their]
        return dg.AssetCheckResult(
            passed=not differing,
            description=f"{len(differing)} samples differ, {differing[0]} first" if differing else None,
            metadata={"samples_compared": len(tokenized)},
        )

    return agrees_with_open_instruct


def _not_compared(reason: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description=f"not compared: {reason}", metadata={"samples_compared": 0})
