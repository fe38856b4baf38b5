"""Tensors and rules: blocks, digests, selection, positions, working set, residency.

Knows no files, no transformers, no tokenizer. Reading order: ``source`` (what is asked of a store),
``rotation``, ``blocks``, ``selectors``, ``buffers``, ``layout``, ``placements``, ``choosing``,
``working_memory``, then ``received``, ``rope_scaling`` and ``modes`` for the reference modes, ``residency``.

Tensor letters, everywhere: layout is (B, H, T, D).

=====  ======================  =====  =======================
``B``  batch                   ``N``  blocks in memory
``Hq`` query heads             ``K``  blocks chosen
``Hkv`` key/value heads        ``L``  tokens in a block
``G``  Hq // Hkv               ``M``  query rows of a selection
``T``  new (query) tokens      ``S``  attended (key) tokens
``D``  head dimension          ``C``  candidate blocks
=====  ======================  =====  =======================

``_raw`` / ``_rot`` on keys and queries: before / after RoPE.
"""
