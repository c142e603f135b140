#!/usr/bin/env python3
"""Loads a model directory with Transformers and answers questions with it: the proof that a checkpoint is usable.

    tools/generate.py --model out/foldoc/output/final "What is Linux?"
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is a local directory

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers.utils import logging  # noqa: E402


def answer(model, tokenizer, question, max_new_tokens):
    """Returns the greedy continuation of the chat with one user turn."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        # Tiny models repeat themselves under plain greedy decoding.
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, repetition_penalty=1.2)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def main():
    """Command line."""
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face model directory")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("questions", nargs="+")
    arguments = parser.parse_args()
    if not os.path.isdir(arguments.model):
        sys.exit(f"generate.py: {arguments.model} is not a directory")

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
    for question in arguments.questions:
        print(f"> {question}\n  {answer(model, tokenizer, question, arguments.max_new_tokens)}")


if __name__ == "__main__":
    main()
