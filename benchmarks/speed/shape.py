"""What a token costs by arithmetic alone: bytes read and operations done, from the model's own weights.

Knows no clock. An operation is a multiplication or an addition, so a product with n weights has 2 n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from agentmem.memory.rotation import LayerSpec


@dataclass(frozen=True)
class ModelShape:
    """Bytes as they are stored in memory, and numbers of weights."""

    attention_weight_bytes: int
    """The projections q, k, v and o of all layers; each decoded token reads them once."""
    attention_weights: int
    mlp_bytes: int
    """All other linear layers but the vocabulary's: the same."""
    mlp_weights: int
    vocabulary_bytes: int
    """The projection onto the vocabulary: once per decoded token, once per chunk."""
    vocabulary_weights: int
    layers: int
    query_dims: int
    """Hq * D, summed over layers."""
    kv_bytes: int
    """Raw keys and values of one token, all layers."""

    @property
    def bytes_per_token(self) -> int:
        """Weights that one decoded token has to read."""
        return self.attention_weight_bytes + self.mlp_bytes + self.vocabulary_bytes

    @property
    def flops_per_token(self) -> int:
        """Of the linear layers, for one token of a chunk."""
        return 2 * (self.attention_weights + self.mlp_weights)

    def attention_bytes(self, seen: int) -> int:
        """Keys and values that one decoded token attends to."""
        return self.kv_bytes * seen

    def attention_flops(self, past: int, new: int) -> int:
        """Of one chunk: ``new`` tokens over ``past`` ones and, causally, over each other."""
        pairs = new * past + new * (new + 1) // 2
        return 4 * self.query_dims * pairs

    def chunk_flops(self, past: int, new: int) -> int:
        """All that a chunk has to compute, one projection onto the vocabulary included."""
        return new * self.flops_per_token + 2 * self.vocabulary_weights + self.attention_flops(past, new)


def shape_of(model: nn.Module, layers: Sequence[LayerSpec], kv_bytes: int) -> ModelShape:
    """The shape of a language model of transformers, whatever its linear layers are made of."""
    head = output_projection(model)
    linears = [(name, m) for name, m in model.named_modules() if is_linear(m) and m is not head]
    projections = [module for name, module in linears if is_projection(name)]
    others = [module for name, module in linears if not is_projection(name)]
    return ModelShape(
        attention_weight_bytes=sum(_bytes(module) for module in projections),
        attention_weights=sum(_weights(module) for module in projections),
        mlp_bytes=sum(_bytes(module) for module in others),
        mlp_weights=sum(_weights(module) for module in others),
        vocabulary_bytes=_bytes(head),
        vocabulary_weights=_weights(head),
        layers=len(layers),
        query_dims=sum(spec.num_q_heads * spec.head_dim for spec in layers),
        kv_bytes=kv_bytes,
    )


def output_projection(model: Any) -> nn.Module:
    """The layer that makes logits."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module), "a language model has a projection onto its vocabulary"
    return head


def widest_linear(model: Any) -> tuple[int, int]:
    """Rows and columns of the largest linear layer, the vocabulary's projection left out."""
    head = output_projection(model)
    sizes = [
        (int(module.out_features), int(module.in_features))
        for module in model.modules()
        if is_linear(module) and module is not head and hasattr(module, "out_features")
    ]
    return max(sizes, key=lambda size: size[0] * size[1])


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product, quantised ones included."""
    return isinstance(module, nn.Linear) or "Linear" in type(module).__name__


def is_projection(name: str) -> bool:
    """Whether a linear layer of that name belongs to attention."""
    return "attn" in name or "attention" in name


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and packed weights that are neither."""
    named = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    known = {id(tensor) for tensor in named}
    loose = [value for value in vars(module).values() if isinstance(value, Tensor) and id(value) not in known]
    return [*named, *loose]


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def _weights(module: nn.Module) -> int:
    """In and out features where the module says so; else the elements of its largest tensor."""
    rows, columns = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if isinstance(rows, int) and isinstance(columns, int):
        return rows * columns
    return max((tensor.numel() for tensor in _tensors(module)), default=0)
