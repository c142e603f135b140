#!/usr/bin/env python3
"""Makes the quickstart's model: a tokenizer trained on the demo data and a small random Qwen3-MoE.

The result is an ordinary Hugging Face model directory (config.json, model.safetensors, tokenizer files with a chat
template), made by Transformers with a fixed seed, so that it stands for any model a user would bring.

    tools/make_demo_model.py --data out/foldoc/data/train.jsonl --output out/foldoc/model
"""

import argparse
import json
import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.utils import logging

SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]

# Trained on: what the assistant says, with the end mark that makes it stop.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def read_texts(path):
    """Yields the text of every message of a JSONL file of conversations."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            for message in json.loads(line)["messages"]:
                yield message["content"]


def train_tokenizer(texts, vocab_size, max_length):
    """Trains a byte-level BPE: every byte has a token, so there is no unknown text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE,
    )


def make_config(tokenizer, arguments):
    """Returns the shape of the model: 10.8 million parameters by default, of which a token uses 3.2."""
    return Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=arguments.hidden,
        intermediate_size=2 * arguments.hidden,
        moe_intermediate_size=arguments.expert_width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 32,
        num_key_value_heads=arguments.hidden // 64,
        head_dim=32,
        num_experts=arguments.experts,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        max_position_embeddings=arguments.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        router_aux_loss_coef=0.01,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )


def main():
    """Command line."""
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="JSONL file with messages")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="model directory to write")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=192, help="multiple of 64")
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--expert-width", type=int, default=160)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    tokenizer = train_tokenizer(read_texts(arguments.data), arguments.vocabulary, arguments.max_length)
    torch.manual_seed(arguments.seed)
    model = Qwen3MoeForCausalLM(make_config(tokenizer, arguments))
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters / 1e6:.1f} million parameters, vocabulary {len(tokenizer)}, in {arguments.output}")


if __name__ == "__main__":
    main()
