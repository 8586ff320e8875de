"""Fetch a base model from its source, and write the unadapted model as an adapter beside it."""

import shutil

from pipeline.core.artifacts import digest
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import Out, main
from pipeline.data.bases import Source
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.decoding.trial import try_model
from pipeline.model.forward.adapters import save_adapter

REMEDY = "choose another base model in params.yaml"


def run(*, name: str, source: Source, model: Out, adapter: Out) -> dict[str, object]:
    """Fetch the base model ``bases.<name>`` of params.yaml into the folder ``model``."""
    parameters = source.fetch(model)
    with step("compare its numbers with those of transformers"):
        try:
            try_model(model, REMEDY)
        except UserError:
            shutil.rmtree(model)  # or it would be taken for a model that passed
            raise
    save_adapter(adapter, Unadapted(), provenance(source.name, parameters))
    return {
        "base": source.name,
        "parameters": parameters,
        "bytes": sum(file.stat().st_size for file in model.iterdir()),
        "digest": digest(model),
    }


if __name__ == "__main__":
    main()
