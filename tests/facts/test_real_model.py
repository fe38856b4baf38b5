"""Facts 1 and 2 once more, on a real model with trained weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.engine.loading import load, resolve
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from support.real_life import MODEL, STORY, play
from support.session_agent import SessionAgent


@pytest.mark.real_model
class TestSmolLM2:
    """SmolLM2-135M-Instruct, 30 layers."""

    def test_dense_logits_are_those_of_transformers(self, tmp_path: Path) -> None:
        """fp32, a few hundred tokens in chunks, resumed, then step by step: within 1e-4 of one stock forward."""
        model = LanguageModel.load(MODEL, device="cpu", dtype="float32")
        ids = model.tokenizer(STORY * 2)["input_ids"][:260]
        agent = SessionAgent(model, DiskHome(tmp_path), MemoryConfig(chunk_tokens=96))
        first = agent.turn(ids[:200])
        second = agent.reopened().turn(ids[200:250], ids[250:])
        stock = load(resolve(MODEL), device="cpu", dtype="float32").model
        with torch.inference_mode():
            wanted = stock(torch.tensor([ids])).logits[0]

        assert float((first[0] - wanted[199]).abs().max()) <= 1e-4
        assert float((second - wanted[249:]).abs().max()) <= 1e-4
        assert second.argmax(-1).equal(wanted[249:].argmax(-1))
        LanguageModel.unload()

    def test_a_fresh_process_goes_on_as_one_that_never_stopped(self, tmp_path: Path) -> None:
        """bf16, sparse: the same text, state ids, K/V bytes and shares; 0 history tokens forwarded."""
        play(tmp_path / "here", 0)
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        wanted = play(tmp_path / "here", 1)
        command = [sys.executable, "-m", "support.real_life", str(tmp_path / "there"), "1"]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[1]
        )
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)

        assert found == json.loads(json.dumps(wanted))
        assert found["blocks"]
        assert found["prefilled"] == 0
        assert found["forwarded"] == found["grown"]
        LanguageModel.unload()
