"""LoRA, DoRA and (IA)³ in our trainer against peft driven by transformers' own ``Trainer``, in float32.

Both start from the same tensors, see the same examples in the same order, and use AdamW with a cosine to zero without
a warmup (transformers counts a warmup's steps from 0, this project from 1). Answers differ in length, so the
``Trainer`` is given our loss, the mean over examples of the means over their answers' tokens, by ``compute_loss_func``.
"""

from types import SimpleNamespace

import peft
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.types import Example
from pipeline.methods import dora, ia3, lora
from pipeline.model.forward.lm_head import lm_head_of
from pipeline.training import supervised
from pipeline.training.loop import Data, Training, order_of, successive_shuffles
from tests.tiny import OPTIMISATION, tiny_compute

STEPS, BATCH, RATE, CLIP, SEED = 20, 4, 0.02, 1.0, 3
LOW_RANK = {"rank": 4, "alpha": 8, "dropout": 0.0, "modules": ["q_proj", "v_proj", "down_proj"]}
EVERY = ["q_proj", "v_proj", "down_proj"]
CASES = {
    "lora": (lora, LOW_RANK, peft.LoraConfig(r=4, lora_alpha=8, target_modules=EVERY)),
    "dora": (dora, LOW_RANK, peft.LoraConfig(r=4, lora_alpha=8, target_modules=EVERY, use_dora=True)),
    "ia3": (
        ia3,
        {"modules": EVERY, "feedforward": ["down_proj"]},
        peft.IA3Config(target_modules=EVERY, feedforward_modules=["down_proj"]),
    ),
}
EXAMPLES = [
    Example(str(n), ({"role": "user", "content": "abcdefgh"[: 2 + n % 6]},), "pqrstuvw"[n % 8] * (1 + n % 3), {})
    for n in range(14)
]


def base_model() -> SimpleNamespace:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return SimpleNamespace(
        model=model,
        lm_head=lm_head_of(model),
        device=torch.device("cpu"),
        prompt_ids=lambda messages: [1, *(3 + ord(letter) % 50 for letter in messages[-1]["content"])],
        answer_ids=lambda text: [*(3 + ord(letter) % 50 for letter in text), 2],
    )


def start(kind: str, base: SimpleNamespace):
    module, settings, _ = CASES[kind]
    parsed = module.Settings.parse(settings, "adapter")
    return module.initial(base.model, parsed, torch.Generator().manual_seed(1))


def ours(kind: str, folder) -> list[float]:
    base = base_model()
    changed = {"steps": STEPS, "batch": BATCH, "learning_rate": RATE, "clip": CLIP, "weight_decay": 0.01}
    settings = supervised.Answering.parse({**OPTIMISATION, **changed, "validate_every": STEPS}, "training")
    curve = supervised.train(
        base,
        start(kind, base),
        Data(EXAMPLES, EXAMPLES[:1]),
        compute=tiny_compute(),
        training=Training(settings, SEED, Checkpoints(folder)),
    )
    return [row["train"] for row in curve[1:]]


class InOrder(Trainer):
    """Takes the examples as they come."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def theirs(kind: str, folder) -> list[float]:
    base = base_model()
    model = peft.get_peft_model(base.model, CASES[kind][2])
    assert not peft.set_peft_model_state_dict(model, start(kind, base_model()).state()).unexpected_keys
    groups = supervised.encode(base, EXAMPLES)
    shuffle = successive_shuffles(len(groups), SEED)
    rows = [groups[row] for step in range(1, STEPS + 1) for row in order_of(step, BATCH, len(groups), shuffle)]
    losses = []

    def collate(batch):
        sizes = [len(group.prompt) + len(group.answers[0]) for group in batch]
        columns = {"input_ids": [], "attention_mask": [], "labels": []}
        for group, size in zip(batch, sizes, strict=True):
            (answer,), left = group.answers, max(sizes) - size
            columns["input_ids"].append([*group.prompt, *answer] + [0] * left)
            columns["attention_mask"].append([1] * size + [0] * left)
            columns["labels"].append([-100] * len(group.prompt) + [*answer] + [-100] * left)
        return {name: torch.tensor(column) for name, column in columns.items()}

    def loss(outputs, labels, num_items_in_batch=None):
        logits, wanted = outputs.logits[:, :-1], labels[:, 1:]
        each = functional.cross_entropy(logits.mT, wanted, reduction="none")
        mean = (each.sum(1) / (wanted != -100).sum(1)).mean()
        losses.append(mean.item())
        return mean

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        max_grad_norm=CLIP,
        optim="adamw_torch",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=SEED,
    )
    InOrder(model, arguments, train_dataset=rows, data_collator=collate, compute_loss_func=loss).train()
    return losses


@pytest.mark.parametrize("kind", CASES)
def test_loss_curve_equals_that_of_transformers_trainer(kind: str, tmp_path) -> None:
    expected = theirs(kind, tmp_path / "theirs")
    found = ours(kind, tmp_path / "ours")
    assert len(found) == len(expected) == STEPS
    assert found == pytest.approx(expected, abs=1e-4, rel=0)
    assert found[-1] < found[0] - 0.1
