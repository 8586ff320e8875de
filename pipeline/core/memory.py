"""Memory that could not be had, as a sentence: it names the settings that say how much is asked for at once."""

import torch

from pipeline.core.errors import UserError


def out_of_memory(error: Exception) -> UserError | None:
    """The sentence for an allocation that failed, on a CPU or an accelerator; None for any other error."""
    # torch's allocator of a CPU's memory has no exception of its own, only these words
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return None
    return UserError(
        "expected memory for the prompts and answers computed at once, got none; lower compute.cache_tokens and "
        "compute.batch_tokens in params.yaml, or ask for fewer or shorter answers"
    )
