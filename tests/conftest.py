"""What all tests share: few threads, no network, no recording."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["SELFADAPT_PREFECT"] = "off"
os.environ["SELFADAPT_WARM"] = "off"  # a folder of a test's own would pay for a server, and use it once
os.environ["DVC_NO_ANALYTICS"] = "1"

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "datasets"
if BESIDE.is_dir():  # a mirror of the benchmarks that stands beside the project
    os.environ.setdefault("SELFADAPT_MIRROR", str(BESIDE))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[1]
