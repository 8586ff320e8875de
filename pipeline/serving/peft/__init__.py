"""SVF, LoReFT and CS-ReFT as methods of peft's own: configured, trained, saved, loaded and switched by its machinery.

    import selfadapt                                      # from here on peft knows them
    from peft import PeftModel, get_peft_model

    tuned = get_peft_model(model, selfadapt.SvfConfig())  # to any trainer that takes a model of peft's
    tuned = PeftModel.from_pretrained(model, folder)      # what it saved, or what 'selfadapt export --as peft' wrote

peft looks a method up by its name in a few tables, and a folder says its method by that name. Here are three names
more, each entered by its module. They begin with the project's, so that a folder says what has to be imported before
peft can read it.
"""

from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The names of our methods, as peft's ``PeftType`` has those of its own, which nothing outside can add to."""

    SVF = "SELFADAPT_SVF"
    LOREFT = "SELFADAPT_LOREFT"
    CSREFT = "SELFADAPT_CSREFT"


def register(kind: Kind, config: type, tuner: Any) -> None:
    """Have peft know a method. Each method's module does so when it is imported."""
    from peft import mapping

    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind] = config
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind] = tuner
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind] = tuner.prefix
