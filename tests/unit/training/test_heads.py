"""Classification heads: what they read, that they learn, and that they are saved with what is below them."""

from types import SimpleNamespace

import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.methods import head, reft
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.model.forward.base import Base, decoder
from pipeline.scoring import metrics
from pipeline.training import supervised
from pipeline.training.loop import Data, Training
from pipeline.training.packing import answer_hidden, packed_batches
from pipeline.training.reading import labelled, predict, reader
from tests.tiny import OPTIMISATION, same_tensors, tiny_compute, tiny_model

WIDTH, PAD = 32, 1
EDITS = reft.Settings(formula="loreft", rank=3, layers="all", positions="f1+l1", tied=True, initial="identity")


class Letters:
    """Letters to ids; a pair of texts between marks, as RoBERTa's tokenizer writes it."""

    pad_token_id, eos_token_id = PAD, 2

    def __call__(self, *texts: str) -> dict[str, list[int]]:
        pairs = [[2, *self.ids(text)] if place else self.ids(text) for place, text in enumerate(texts)]
        return {"input_ids": [0, *(id_ for one in pairs for id_ in [*one, 2])]}

    def apply_chat_template(self, messages, **_) -> list[int]:
        return [1, *self.ids(messages[-1]["content"]), 2]

    def ids(self, text: str) -> list[int]:
        return [4 + ord(letter) % 50 for letter in text]


def base_of(read: str) -> Base:
    torch.manual_seed(0)
    shape = {"vocab_size": 61, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2}
    places = {"pad_token_id": PAD, "max_position_embeddings": 64}
    config = RobertaConfig(**shape, **places, num_attention_heads=4, initializer_range=0.2)
    model = RobertaForMaskedLM(config).eval().requires_grad_(False) if read == "first" else tiny_model()
    return Base(model, Letters(), frozenset([2]))


def made(base: Base, read: str) -> head.Headed:
    edits = reft.initial(base.model, EDITS, torch.Generator().manual_seed(1))
    return head.initial(edits, WIDTH, ("no", "yes"), read)


def example(number: int) -> Example:
    """The label is whether an x stands in the second text."""
    label = "yes" if number % 2 else "no"
    text = f"{'abcdefgh'[: 2 + number % 5]}\n{'pqrst'[: 1 + number % 4]}{'x' if number % 2 else 'y'}"
    return Example(
        str(number), ({"role": "user", "content": text},), "", {"answer": label, "subset": "rte", "task": "t"}
    )


EXAMPLES = labelled([example(number) for number in range(24)], "answer", "rte")
SEEN = EXAMPLES[:16]


@pytest.mark.parametrize("read", ["last", "first"])
def test_a_head_learns_labels_and_is_saved_with_the_edits_below_it(read, tmp_path):
    base = base_of(read)
    weights = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    trained = made(base, read)
    reading = reader(base, trained.head, trained.labels, read)
    changed = {"steps": 60, "batch": 8, "validate_every": 20, "warmup": 0.2, "weight_decay": 0.01}
    chosen = supervised.Answering.parse({**OPTIMISATION, **changed}, "training")
    rows = supervised.train(
        reading,
        trained,
        Data(SEEN, SEEN),
        compute=tiny_compute(batch_tokens=256),
        training=Training(chosen, seed=0, checkpoints=Checkpoints(tmp_path / "checkpoints")),
    )
    assert rows[0]["validation"] == pytest.approx(torch.tensor(2.0).log().item())  # a head of zeros says nothing
    save_adapter(tmp_path / "head.safetensors", trained, {})
    loaded, _ = load_adapter(tmp_path / "head.safetensors")
    assert loaded.config() == trained.config() and same_tensors(loaded.state(), trained.state())
    assert {name.partition(".")[0] for name in trained.state()} == {"head", "inner"}
    assert rows[-1]["validation"] < 0.5 * rows[0]["validation"]
    expected, said = [one.target for one in SEEN], []
    for adapter in (trained, loaded):
        with adapter.attached(base.model, None) as attachment:
            said.append(predict(reader(base, adapter.head, adapter.labels, read), attachment, SEEN, 256))
    assert said[0] == said[1]
    assert metrics.of_labels("accuracy", said[0], expected) > 0.8
    assert same_tensors(dict(base.model.state_dict()), weights)


@pytest.mark.parametrize("read", ["last", "first"])
def test_logits_are_of_the_state_the_unpadded_prompt_has_alone(read):
    base = base_of(read)
    trained = made(base, read)
    with torch.no_grad():
        trained.head.weight.normal_(generator=torch.Generator().manual_seed(3))
    reading = reader(base, trained.head, trained.labels, read)
    with torch.no_grad():
        for one in EXAMPLES:  # batched with longer ones, and the label behind it, against alone
            states = decoder(base.model)(input_ids=torch.tensor([reading.prompt_ids(one.messages)])).last_hidden_state
            alone = trained.head(states[0, -1 if read == "last" else 0])
            with trained.attached(base.model, None) as attachment:
                groups = supervised.encode(reading, [one, *EXAMPLES[:5]])
                ((batch, packed),) = packed_batches(groups, attachment, batch_tokens=10_000, device=reading.device)
                hidden = answer_hidden(decoder(reading.model), packed, attachment)
            loss = -trained.head(hidden).log_softmax(-1)[batch.index(0), packed.target[batch.index(0)]]
            torch.testing.assert_close(
                loss, -alone.log_softmax(-1)[trained.labels.index(one.target)], atol=1e-5, rtol=1e-5
            )


def test_the_two_texts_of_a_pair_reach_an_encoder_as_a_pair():
    reading = reader(base_of("first"), head.Head(torch.zeros(2, WIDTH), torch.zeros(2)), ("no", "yes"), "first")
    ids = Letters()
    assert reading.prompt_ids(({"content": "ab\nc"},)) == [0, *ids.ids("ab"), 2, 2, *ids.ids("c"), 2]
    assert reading.prompt_ids(({"content": "ab"},)) == [0, *ids.ids("ab"), 2]


def test_unknown_labels_subsets_readings_and_metrics_are_one_sentence():
    base = SimpleNamespace(model=tiny_model(), tokenizer=Letters(), end_ids=frozenset())
    with pytest.raises(UserError, match="expected examples of the subset 'cola' with 'answer' in their meta, got 0 of"):
        labelled(EXAMPLES, "answer", "cola")
    with pytest.raises(UserError, match="expected one of the labels no, yes, got 'maybe'"):
        reader(base, head.Head(torch.zeros(2, WIDTH), torch.zeros(2)), ("no", "yes"), "last").answer_ids("maybe")
    with pytest.raises(UserError, match="the 'last' token or the 'first', got 'middle'"):
        reader(base, head.Head(torch.zeros(2, WIDTH), torch.zeros(2)), ("no", "yes"), "middle")
    with pytest.raises(UserError, match="expected a metric of labels"):
        metrics.of_labels("pearson", ["yes"], ["yes"])
