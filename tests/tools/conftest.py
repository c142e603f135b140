"""A small model directory for the tests of tools/: byte-level BPE, ChatML template, config.json."""

import json
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tools"))

import prepare_data  # noqa: E402

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's: renders the last turn otherwise than earlier ones, so a beginning is no prefix of the whole.
LAST_THINKS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Besides, says everything twice: where a turn begins and ends cannot be told.
ECHOES = LAST_THINKS.replace("message['content'] +", "message['content'] + '/' + message['content'] +")

# Takes a content that is a list of texts, each on a line of its own; PRINTS writes it as Python does.
LISTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text + '\n' }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PRINTS = CHATML.replace(" + message['content'] + ", " ~ message['content'] ~ ")

# As Qwen3's: reasoning inside the content is rendered only behind the last question, and tool calls are.
REASONS = (
    "{% set last = namespace(question=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.question = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% set thought = '' %}{% set said = m.content if m.content is string else '' %}"
    "{% if m.role == 'assistant' %}"
    "{% if '</think>' in said %}{% set parts = said.split('</think>') %}"
    "{% set thought = parts[0].replace('<think>', '').strip() %}{% set said = parts[1].strip() %}{% endif %}"
    "{% if loop.index0 > last.question and (loop.last or thought) %}{{ '<think>' + thought + '</think>' }}{% endif %}"
    "{% endif %}{{ said }}"
    "{% for call in m.tool_calls or [] %}{% if said or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<call>' + call.function.name + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Besides, takes a tool's answer only behind a call.
REASONS_STRICTLY = (
    "{% for m in messages %}{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}"
    "{{ raise_exception('no call') }}{% endif %}{% endfor %}" + REASONS
)


def make_model(directory, template=CHATML, vocab_size=400, max_position_embeddings=128):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["what is a thing? a thing is what it is. user assistant system " * 20], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )
    if template:
        (directory / "chat_template.jinja").write_text(template)
    (directory / "config.json").write_text(
        json.dumps(
            {
                "model_type": "qwen3_moe",
                "vocab_size": vocab_size,
                "max_position_embeddings": max_position_embeddings,
            }
        )
    )
    return directory


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(model, tmp_path, capsys):
    """Runs prepare_data on 64 tokens a sequence, or `length`; returns (exit code, result or error, standard error)."""

    def call(train, *more, model_dir=model, length=64):
        code = prepare_data.main(
            ["--model", str(model_dir), "--train", str(train), "--sequence-length", str(length)]
            + ["--output-dir", str(tmp_path / "out"), "--progress-json", *map(str, more)]
        )
        captured = capsys.readouterr()
        last = json.loads(captured.out.strip().splitlines()[-1])
        return code, last.get("result", last.get("error")), captured.err

    return call
