"""A small tower that reads a line of text: a picture of 32 × 128 pixels to 16 columns, as a model of transformers.

Registered under ``column_tower``, so that a LLaVA folder that names it in its ``vision_config`` is loaded by plain
transformers once this module has been imported.

A picture is reduced to the contrast of its text: the mean of its colors, at mean 0 and variance 1, with the rarer
shade above. What is left are shapes, whatever colors a sign has. A stem of convolutions makes 32 columns of it, 4
pixels wide each; pairs of them are joined, and layers of attention let each column see the others.

Each column is then taken for a character, or for none. Those that are one are handed on in their order, each character
once, and what is left of the 16 places says that nothing is there. So a language model reads a sign letter by letter
from the left, wherever on the picture it stands.
"""

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

HEIGHT, WIDTH, COLUMNS = 32, 128, 16


class ColumnTowerConfig(PreTrainedConfig):
    """channels: of the stem's first layer. characters: that are told apart, the first of which is none.

    The others are as transformers' own towers have them.
    """

    model_type = "column_tower"
    base_config_key = "vision_config"
    hidden_size: int = 224
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    channels: int = 32
    characters: int = 41
    image_size: int = WIDTH
    patch_size: int = WIDTH // COLUMNS


def _block(into: int, out: int, stride: int | tuple[int, int]) -> list[nn.Module]:
    return [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


class ColumnTower(PreTrainedModel):
    """Pixels (rows, 3, 32, 128) to columns (rows, 16, hidden)."""

    config_class = ColumnTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules: tuple[str, ...] = ()

    def __init__(self, config: ColumnTowerConfig) -> None:
        super().__init__(config)
        first, hidden = config.channels, config.hidden_size
        self.stem = nn.Sequential(
            *_block(1, first, 2),  # 16 × 64
            *_block(first, 2 * first, 2),  # 8 × 32
            *_block(2 * first, 4 * first, (2, 1)),  # 4 × 32
            *_block(4 * first, 6 * first, (2, 1)),  # 2 × 32
        )
        self.into = nn.Linear(4 * 6 * first, hidden)
        self.position = nn.Parameter(torch.zeros(1, COLUMNS, hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden,
                config.num_attention_heads,
                3 * hidden,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, config.characters)
        self.nothing = nn.Parameter(torch.zeros(hidden))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initial values stay."""

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutput:
        columns = self.columns(pixel_values)
        read, _ = self.read(columns, self.head(columns).argmax(-1))
        return BaseModelOutput(last_hidden_state=read, hidden_states=(columns, read))

    def columns(self, pixel_values: Tensor) -> Tensor:
        """What is seen, column by column: (rows, 16, hidden)."""
        shapes = self.stem(_contrast(pixel_values.float()).to(self.into.weight.dtype))  # (rows, c, 2, 32)
        pairs = shapes.permute(0, 3, 2, 1).reshape(len(shapes), COLUMNS, -1)
        columns = self.into(pairs) + self.position
        for layer in self.layers:
            columns = layer(columns)
        return self.norm(columns)

    def read(self, columns: Tensor, characters: Tensor) -> tuple[Tensor, Tensor]:
        """The columns that are characters, in order, then nothing; and which characters they are, 0 for nothing.

        characters: (rows, 16) what each column is taken for. Neighbours that are taken for the same are one.
        """
        before = nn.functional.pad(characters[:, :-1], (1, 0))
        written = (characters != 0) & (characters != before)
        order = (~written).to(torch.int8).argsort(dim=1, stable=True)
        there = torch.arange(columns.shape[1], device=columns.device) < written.sum(1, keepdim=True)
        ordered = columns.gather(1, order[..., None].expand_as(columns))
        return torch.where(there[..., None], ordered, self.nothing), characters.gather(1, order) * there


def _contrast(pixels: Tensor) -> Tensor:
    """(rows, 3, high, wide) to (rows, 1, high, wide): mean 0, variance 1, the rarer shade above."""
    gray = pixels.mean(1, keepdim=True)
    gray = gray - gray.mean((2, 3), keepdim=True)
    gray = gray / gray.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-4)
    skewed = gray.pow(3).mean((2, 3), keepdim=True)
    return torch.where(skewed < 0, -gray, gray)


AutoConfig.register(ColumnTowerConfig.model_type, ColumnTowerConfig, exist_ok=True)
AutoModel.register(ColumnTowerConfig, ColumnTower, exist_ok=True)
