"""Make a small random base model, with a tokenizer trained on the tasks' own texts: nothing is downloaded.

The tokenizer is a byte-level BPE, which any text survives, with the three ChatML tokens of SmolLM2 and Qwen. The model
is a Llama with random weights: it knows nothing, and serves to run the whole graph in a short time.
"""

from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.core.artifacts import atomic_folder, read_jsonl
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.forward.adapters import save_adapter

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Initialised(Section, at="bases.{name}"):
    """A random model.

    name: what it is called in the report. seed: of its weights. vocabulary: tokens, at most.
    max_positions: tokens of prompt and answer, at most. The other sizes are LlamaConfig's.
    """

    source: Literal["random"]
    name: str
    seed: int
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    vocabulary: int
    max_positions: int


def chat_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``vocabulary`` tokens, trained on ``texts``."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def random_model(settings: Initialised, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama whose weights are drawn from ``settings.seed``, float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return LlamaForCausalLM(config)


def run(*, name: str, text: list[In], settings: Initialised, model: Out, adapter: Out) -> dict[str, object]:
    """Make the base model ``bases.<name>`` of params.yaml. text: the examples that its tokenizer is trained on."""
    with step("train the tokenizer"):
        rows = [row for path in text for row in read_jsonl(path)]
        texts = [part for row in rows for part in (*(turn["content"] for turn in row["messages"]), row["target"])]
        tokenizer = chat_tokenizer(texts, settings.vocabulary)
    with step("draw the weights"), atomic_folder(model) as folder:
        drawn = random_model(settings, tokenizer)
        drawn.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    save_adapter(adapter, Unadapted(), provenance(settings.name, drawn.num_parameters()))
    return {"base": settings.name, "parameters": drawn.num_parameters(), "vocabulary": len(tokenizer)}


if __name__ == "__main__":
    main()
