"""A tiny Llama as a GGUF file, written by the ``gguf`` package as llama.cpp's converter writes one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = ["the cat sat on the mat and the dog sat on the cat", "a cat and a dog", "on the mat the dog sat"]
SPECIAL = ["<unk>", "<s>", "<other>", "</s>"]
EOS = 3
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; its EOS is none of the ids that a configuration of Llama has by default."""
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXTS, BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def small_llama(seed: int = 0, *, vocab_size: int) -> LlamaForCausalLM:
    """Two layers of width 32 with grouped queries."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as llama.cpp has them: the two halves of each head interleaved.

    transformers turns feature i of a head together with i + D/2, llama.cpp 2i with 2i + 1.
    """
    per_head = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.concatenate([np.stack([half[0], half[1]], axis=1).reshape(-1, weight.shape[1]) for half in per_head])


def write_gguf(
    path: Path,
    *,
    seed: int = 0,
    architecture: str = "llama",
    half: bool = False,
    tensors: Mapping[str, np.ndarray | None] = MappingProxyType({}),
    values: Mapping[str, Any] = MappingProxyType({}),
) -> LlamaForCausalLM:
    """Write the file. Returns: the model that it holds, built without it.

    Args:
        path: of the file.
        seed: of the weights.
        architecture: name that the file gives.
        half: store the matrices in float16, and round those of the returned model alike.
        tensors: further ones; None leaves out one of the model's.
        values: further metadata, whole numbers and texts.
    """
    tokenizer = small_tokenizer()
    model = small_llama(seed, vocab_size=len(tokenizer))
    if half:
        for weight in model.parameters():
            weight.data = weight.data.half().float() if weight.dim() > 1 else weight.data
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, value in values.items():
        writer.add_string(name, value) if isinstance(value, str) else writer.add_uint32(name, value)
    for name, tensor in (_tensors(model) | dict(tensors)).items():
        if tensor is None:
            continue
        writer.add_tensor(name, tensor.astype(np.float16) if half and tensor.ndim > 1 else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    merges = tokenizer.backend_tokenizer.model.__getstate__()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in json.loads(merges)["merges"]])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(EOS)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    config = model.config
    found = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in LAYER_TENSORS.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            found[f"blk.{layer}.{theirs}.weight"] = interleaved(weight, heads[theirs]) if theirs in heads else weight
    return found
