"""Stages that share the cores: the threads they have, and what these do not change at the shapes of these tests.

No library promises it: the gradients of LoReFT's edits of rank 12 on SmolLM2-135M are summed otherwise by two threads.
"""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import SHARE
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.methods import lora, reft, svf
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.forward.base import Adapted, Compute, prepare_process
from pipeline.training import supervised
from pipeline.training.loop import Data, Training
from tests.tiny import MODULES, OPTIMISATION, same_tensors, tiny_base, tiny_compute, tiny_factors

EDITS = {"formula": "loreft", "rank": 8, "layers": "all", "positions": "f5+l5", "tied": True, "initial": "identity"}
LOW_RANK = {"rank": 16, "alpha": 32, "dropout": 0.05, "modules": ["q_proj", "v_proj"]}
SCALES = {"modules": list(MODULES), "parametrisation": "direct", "init_mean": 0.1, "init_std": 0.01}
CHANGED = {"steps": 2, "batch": 12, "learning_rate": 0.01, "schedule": "linear", "warmup": 0.5, "validate_every": 1}
TRAINING = supervised.Answering.parse({**OPTIMISATION, **CHANGED}, "training")
EXAMPLES = [
    Example(str(n), ({"role": "user", "content": "wxyz" * (9 + n)},), "abc" * (1 + n % 5), {}) for n in range(12)
]


@pytest.fixture(scope="module")
def base() -> SimpleNamespace:
    """Of SmolLM2-135M's shapes but for depth and vocabulary: products wide enough for libraries to share out."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    base = tiny_base(vocab=4000, **shape)
    base.model.to(torch.bfloat16)
    return base


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Tiles of a CPU with AMX sum in an order that follows the share of each thread; without them, as
# ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 has it, such a CPU computes these bytes, too, three to six times as slowly.
tiles = torch.cpu._is_amx_tile_supported() and os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT") == "DEFAULT"


@pytest.mark.skipif(tiles, reason="this CPU multiplies in tiles, whose sums follow the number of threads")
@pytest.mark.parametrize("method", ["svf", "lora", "reft"])
def test_training_makes_the_same_bytes_with_one_thread_and_with_two(base, with_threads, method, tmp_path):
    states = []
    for threads in (1, 2):
        with_threads(threads)
        draw = torch.Generator().manual_seed(0)
        if method == "svf":
            factors = tiny_factors(base.model, tmp_path)
            adapter = svf.learner(base.model, svf.Targets.parse(SCALES, "svf"), factors=factors, generator=draw)
        else:
            module, settings = (lora, LOW_RANK) if method == "lora" else (reft, EDITS)
            adapter = module.initial(base.model, module.Settings.parse(settings, method), draw)
        curve = supervised.train(
            base,
            adapter,
            Data(EXAMPLES, EXAMPLES[:4]),
            compute=tiny_compute(batch_tokens=2048),
            training=Training(TRAINING, seed=0, checkpoints=Checkpoints(tmp_path / str(threads))),
        )
        assert len({row["train"] for row in curve}) == 3  # it learns something
        states.append({name: tensor.clone() for name, tensor in adapter.state().items()})
    assert same_tensors(*states)


def test_sampling_draws_the_same_tokens_with_one_thread_and_with_two(base, with_threads):
    answers = []
    for threads in (1, 2):
        with_threads(threads)
        asked = [base.prompt_ids(example.messages) for example in EXAMPLES]
        sampling = Sampling(generator=torch.Generator().manual_seed(0), samples=3)
        adapted = Adapted(base, tiny_compute(2048, 32768))
        answers.append(generate(adapted, asked, max_new_tokens=24, sampling=sampling))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("share", "threads"), [(None, 3), ("1", 1), ("8", 3)])
def test_a_stage_has_the_threads_of_its_settings_and_at_most_its_share(monkeypatch, share, threads):
    code = (
        "import torch; from pipeline.model.forward.base import Compute, prepare_process\n"
        "prepare_process(Compute(device='cpu', dtype='float32', threads=3, batch_tokens=1, cache_tokens=1))\n"
        "print(torch.get_num_threads())"
    )
    monkeypatch.delenv(SHARE, raising=False)
    if share:
        monkeypatch.setenv(SHARE, share)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads


@pytest.mark.parametrize("share", ["two", "0", "-1", "1.5", ""])
def test_a_share_that_is_no_number_of_threads_is_one_sentence(monkeypatch, share):
    monkeypatch.setenv(SHARE, share)
    with pytest.raises(UserError, match=f"expected {SHARE} to be a number of threads from 1 on, got '{share}'"):
        prepare_process(Compute(device="cpu", dtype="float32", threads=3, batch_tokens=1, cache_tokens=1))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such settings")
def test_a_stage_uses_the_memory_of_a_tensor_again_for_the_next():
    code = (
        "import resource, torch; from pipeline.model.forward.base import Compute, prepare_process\n"
        "prepare_process(Compute(device='cpu', dtype='float32', threads=1, batch_tokens=1, cache_tokens=1))\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): before = faults(); several = [torch.ones(4 << 20) for _ in range(6)]; del several\n"
        "print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Pages that the system handed out, of 24 576: without the setting up to all, as the heap happens to lie.
    assert int(done.stdout) < 100
