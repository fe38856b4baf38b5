"""Decoder layers of the most common shape, with less to do around their matrix products.

A layer of transformers makes queries, keys and values in three products, turns them by the inert rotary module,
and looks its attention up for every token; one product and a direct call give the same bits. A layer is replaced
only if it has exactly the parts named here and, tried on random states, its replacement hands attention the same
tensors and returns the same bits: so no architecture is known by name. For good: the model is no use unbound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agentmem.engine.attention import CONTEXT_KEYWORD, BoundCall

_LAYER = frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj", "act_fn"})


class LeanLayer(nn.Module):
    """Norm, attention, norm, gated MLP, each with a residual sum. Its inputs are those of the layer it replaces.

    Args:
        original: a layer with the parts named above.
        heads: query and KV heads.
    """

    def __init__(self, original: Any, heads: tuple[int, int]) -> None:
        super().__init__()
        attention, mlp = original.self_attn, original.mlp
        plain = {k: v for k, v in vars(original).items() if isinstance(v, str | int | float) and k[0] != "_"}
        self.__dict__.update(plain)  # what the model may ask a layer for, such as its attention_type
        self.norm_before = original.input_layernorm
        self.attn_in = _side_by_side([attention.q_proj, attention.k_proj, attention.v_proj])
        self.attn_out = attention.o_proj
        self.norm_between = original.post_attention_layernorm
        self.mlp_in = _side_by_side([mlp.gate_proj, mlp.up_proj])
        self.activation = mlp.act_fn
        self.mlp_out = mlp.down_proj
        self.scaling = float(attention.scaling)
        self._heads = (heads[0], heads[1], heads[1])
        self._known_as = (attention,)  # in a tuple: not a child

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        """One layer, (B, T, K) -> (B, T, K), with the attention of the call's contexts."""
        call: BoundCall = keywords[CONTEXT_KEYWORD]
        B, T, _ = hidden_states.shape
        made = self.attn_in(self.norm_before(hidden_states)).view(B, T, sum(self._heads), -1).transpose(1, 2)
        q_raw, k_raw, v = made.split(self._heads, dim=1)
        seen = call.attend(self._known_as[0], q_raw, k_raw, v, scaling=self.scaling, softcap=None, sinks=None)
        hidden_states = hidden_states + self.attn_out(seen.transpose(1, 2).reshape(B, T, -1))
        gate, up = self.mlp_in(self.norm_between(hidden_states)).chunk(2, dim=-1)
        out: Tensor = hidden_states + self.mlp_out(self.activation(gate) * up)
        return out

    def let_go(self) -> None:
        """Empty the module that the binding knows this layer by of its weights, which are here now."""
        for name in _ATTENTION:
            delattr(self._known_as[0], name)


def make_lean(model: PreTrainedModel, hold: Callable[[nn.Module], None]) -> int:
    """Replace what layers of a bound model can be replaced, one by one; returns how many.

    Only on the CPU, where the bits can be compared and Python is what costs. ``hold`` brings a new layer's weights
    into the form they are kept in, before the next one is made.
    """
    if model.device.type != "cpu":
        return 0
    count = 0
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in [name for name, module in model.named_modules() if _fits(module)]:
            lean = _lean(model.get_submodule(name))
            if lean is not None:
                hold(lean)
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, lean)
                lean.let_go()
                count += 1
    return count


def _lean(original: Any) -> LeanLayer | None:
    """A layer that does the same with less; None when it would not be the same."""
    lean = None
    for tokens in (33, 1):
        states = torch.randn(1, tokens, original.self_attn.q_proj.in_features)
        states = states.to(original.self_attn.q_proj.weight.dtype)
        theirs = _Listener()
        wanted = theirs.listen(original, states)
        if wanted is None:
            return None
        lean = lean or LeanLayer(original, theirs.heads)
        ours = _Listener()
        out = ours.listen(lean, states)
        if out is None or not torch.equal(out, wanted) or not ours.heard_the_same(theirs):
            return None
    return lean


def _fits(module: Any) -> bool:
    if not _has(module, _LAYER) or not _has(module.self_attn, _ATTENTION) or not _has(module.mlp, _MLP):
        return False
    attention, mlp = module.self_attn, module.mlp
    groups = [[attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]]
    linears = [*groups[0], *groups[1], attention.o_proj, mlp.down_proj]
    return (
        all(type(linear) is nn.Linear for linear in linears)
        and all(len({linear.bias is None for linear in group}) == 1 for group in groups)
        and not any(_hooked(part) for part in module.modules())
    )


def _has(module: nn.Module, parts: frozenset[str]) -> bool:
    return {name for name, _ in module.named_children()} == parts and not any(
        True for _ in module.parameters(recurse=False)
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 no public way to ask


def _side_by_side(linears: list[nn.Linear]) -> nn.Linear:
    """One layer whose outputs are those of several, one after the other."""
    first = linears[0]
    rows = sum(linear.out_features for linear in linears)
    made: nn.Linear = nn.utils.skip_init(
        nn.Linear, first.in_features, rows, bias=first.bias is not None, dtype=first.weight.dtype
    )
    torch.cat([linear.weight.detach() for linear in linears], out=made.weight.data)
    if first.bias is not None:
        torch.cat([linear.bias.detach() for linear in linears], out=made.bias.data)
    return made


class _Listener:
    """Attention that remembers what it was handed, and answers with something of all of it."""

    def __init__(self) -> None:
        self.heard: list[Tensor] = []
        self.how: dict[str, Any] = {}

    @property
    def heads(self) -> tuple[int, int]:
        """Query and KV heads of what was heard."""
        return self.heard[0].shape[1], self.heard[1].shape[1]

    def attend(self, layer: int, q_raw: Tensor, k_raw: Tensor, v: Tensor, **how: Any) -> Tensor:
        """See :class:`~agentmem.engine.attention.AttentionContext`."""
        self.heard += [q_raw, k_raw, v]
        self.how = how
        group = q_raw.shape[1] // v.shape[1]
        return (q_raw + (k_raw + v).repeat_interleave(group, dim=1)) * 0.5

    def listen(self, layer: nn.Module, states: Tensor) -> Tensor | None:
        """What a layer makes of states (1, T, K) with this attention; None when it cannot be called so."""
        attention: Any = layer._known_as[0] if isinstance(layer, LeanLayer) else layer.self_attn  # noqa: SLF001
        one = torch.ones(1, states.shape[1], int(getattr(attention, "head_dim", 0)), dtype=states.dtype)
        keywords: dict[str, Any] = {CONTEXT_KEYWORD: BoundCall([self], {attention: 0})}
        try:
            out = layer(states, attention_mask=None, position_embeddings=(one, one * 0), **keywords)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
            return None
        return out if isinstance(out, Tensor) and len(self.heard) == 3 else None

    def heard_the_same(self, other: _Listener) -> bool:
        """Whether both were handed the same bits, to be treated alike."""
        pairs = zip(self.heard, other.heard, strict=True)
        return self.how == other.how and all(torch.equal(a, b) for a, b in pairs)
