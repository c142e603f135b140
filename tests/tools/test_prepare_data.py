"""tools/prepare_data.py: what is trained on, packing, reports, refusals, determinism."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from conftest import ECHOES, LAST_THINKS, MARKED, REASONS, REASONS_STRICTLY, SOURCE, make_model
from prepared import END, Split, assistant, chat, texts, user, write_jsonl

import prepare_data
from switchyard_data import documents, packing


def test_trains_on_assistant_turns_only(run, model, tmp_path):
    two = {"messages": chat("what is it?", "a thing.")["messages"] + chat("is it?", "it is.")["messages"]}
    data = write_jsonl(tmp_path / "d.jsonl", [chat("what is a thing?", "it is é."), two])
    code, result, _ = run(data)
    assert code == 0
    found = texts(model, result["train_dir"])
    assert found[0] == (
        "<|im_start|>user\nwhat is a thing?<|im_end|>\n<|im_start|>assistant\nit is é.<|im_end|>\n",
        "it is é.<|im_end|>\n",
    )
    assert found[1][1] == "a thing.<|im_end|>\nit is.<|im_end|>\n"


def test_generation_marks_of_the_template_decide(run, tmp_path):
    marked = make_model(tmp_path / "marked", MARKED)
    examples = [
        chat("what?", "it is."),
        {"prompt": chat("a", "b")["messages"], "completion": chat("what?", "a thing.")["messages"]},
    ]
    _, result, _ = run(write_jsonl(tmp_path / "d.jsonl", examples), model_dir=marked)
    found = texts(marked, result["train_dir"])
    assert [target for _, target in found] == ["it is.<|im_end|>", "a thing.<|im_end|>"]


def test_prompt_and_completion_and_text(run, model, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [{"prompt": "what is ", "completion": "a thing"}, {"text": "it is what"}])
    _, result, _ = run(data)
    assert texts(model, result["train_dir"]) == [
        ("what is a thing<|endoftext|>", "a thing<|endoftext|>"),
        ("it is what<|endoftext|>", " is what<|endoftext|>"),  # nothing predicts the first token
    ]


def test_train_on_all_tokens_leaves_out_only_first_tokens(run, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [chat("what?", "it."), chat("is it?", "what.")])
    _, result, _ = run(data, "--train-on-all-tokens")
    index = Split(result["train_dir"]).index
    assert index["targets"] == index["tokens"] - 2 == result["train_targets"]


def test_packs_keeping_documents_whole_and_counts(run, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [chat("what is it?" * (i % 3), "a thing " * (i % 4 + 1)) for i in range(40)])
    code, packed, _ = run(data)
    assert code == 0
    split = Split(packed["train_dir"])
    _, single, _ = run(data, "--disable-packing")
    alone = Split(single["train_dir"])
    assert single["train_sequences"] == 40 and packed["train_sequences"] < 40
    assert all(starts == [0] for _, _, starts in alone.sequences)
    assert sorted(split.documents()) == sorted(alone.documents())
    assert split.index["documents"] == 40
    assert split.index["tokens"] == sum(len(tokens) for tokens, _, _ in split.sequences)
    assert packed["train_targets"] == single["train_targets"] == sum(sum(marks) for _, marks, _ in split.sequences)


def test_first_fit_takes_the_first_open_sequence_with_room():
    sequence_of, count = packing.pack([5, 6, 3, 2, 4, 4], 8)
    assert (sequence_of.tolist(), count) == ([0, 1, 0, 1, 2, 2], 3)
    many = np.random.default_rng(0).integers(1, 65, 5000).tolist()
    sequence_of, count = packing.pack(many, 64)
    fill = np.bincount(sequence_of, weights=many)
    assert fill.max() <= 64 and len(fill) == count and fill.mean() > 60


def test_all_formats_give_the_same_shards(run, tmp_path):
    examples = [chat(f"what is {i}?", f"it is {i}.") for i in range(20)]
    plain = write_jsonl(tmp_path / "d.jsonl", examples)
    text = plain.read_bytes()
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(text[:100]) + zstandard.compress(text[100:]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples), tmp_path / "d.parquet")
    hashes = set()
    for name in ("d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.parquet"):
        code, result, _ = run(tmp_path / name)
        assert code == 0, result
        hashes.add(Split(result["train_dir"]).index["shards"][0]["xxh3"])
    assert len(hashes) == 1


def zstd_blocks(parts):
    """One frame in which each part is flushed by itself; and where the first part ends."""
    writer = zstandard.ZstdCompressor().compressobj()
    blocks = [writer.compress(part) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
    return b"".join(blocks) + writer.flush(), len(blocks[0])


def test_a_cut_zstd_file_is_refused(run, tmp_path):
    lines = [json.dumps(chat(f"what is {i}?", "it is " * (i % 7 + 1))).encode() + b"\n" for i in range(200)]
    whole, block = zstd_blocks([b"".join(lines[:100]), b"".join(lines[100:])])
    frame = zstandard.compress(lines[0])
    file = tmp_path / "d.jsonl.zst"
    for cut in (whole[:block], whole[: len(whole) // 2], whole[:-1], frame + whole[:block], frame + frame[:3]):
        file.write_bytes(cut)
        code, error, _ = run(file, "--max-bad-lines", 1000)
        assert code == 65, error
        assert error["message"] == f"{file}: damaged zstd data: the file ends inside a frame"
    file.write_bytes(frame + b"no frame")
    code, error, _ = run(file)
    assert code == 65 and error["message"].startswith(f"{file}: damaged zstd data: ")


def test_every_frame_of_a_whole_zstd_file_is_read(tmp_path):
    lines = [json.dumps({"text": f"{i} " * (i % 3000)}).encode() + b"\n" for i in range(2000)]
    skipped = b"\x50\x2a\x4d\x18\x05\x00\x00\x00index"  # a skippable frame, as parallel compressors write them
    frames = [zstd_blocks([b"".join(lines[:700]), lines[700]])[0], zstandard.compress(b""), skipped]
    frames += [zstandard.compress(b"".join(lines[701:]))]
    (tmp_path / "d.jsonl.zst").write_bytes(b"".join(frames))
    found = list(documents.Documents(str(tmp_path / "d.jsonl.zst")))
    assert found == [(i, json.loads(line)) for i, line in enumerate(lines, 1)]


def test_reuses_valid_data_and_replaces_damaged_data(run, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [chat("what?", f"it {i}") for i in range(5)])
    held_out = write_jsonl(tmp_path / "e.jsonl", [chat("is?", "it")])
    _, first, _ = run(data, "--eval", held_out)
    assert not first["cached"] and first["eval_sequences"] == 1 and first["eval_dir"]
    _, second, _ = run(data, "--eval", held_out)
    assert second == {**first, "cached": True}
    shard = os.path.join(first["train_dir"], "tokens-00000.bin")
    good = open(shard, "rb").read()
    open(shard, "wb").write(good[:-1] + b"\1")
    _, third, _ = run(data, "--eval", held_out)
    assert third == first and open(shard, "rb").read() == good
    _, other, _ = run(data)
    assert other["train_dir"] != first["train_dir"]
    assert [name for name in os.listdir(tmp_path / "out") if name.startswith(".")] == []


def test_reports_dropped_and_truncated_examples_with_lines(run, tmp_path):
    long = chat("is it?", "a thing is " * 40)
    hidden = chat("is it? " * 60, "no")
    no_answer = {"messages": [{"role": "user", "content": "what?"}]}
    data = write_jsonl(tmp_path / "d.jsonl", [chat("a", "b"), long, "", hidden, no_answer])
    _, result, err = run(data)
    report = Split(result["train_dir"]).index["report"]
    assert (report["examples"], report["kept"], report["dropped"], report["truncated"]) == (4, 2, 2, 1)
    assert report["listed"]["truncated"][0]["line"] == 2
    assert report["listed"]["dropped"] == [
        {"line": 5, "reason": "no assistant turn"},
        {"line": 4, "reason": "no token to train on within the first 64 tokens"},
    ]
    assert "dropped: line 5: no assistant turn" in err


BAD_LINES = [
    ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
    ("[1]", "not a JSON object but a list"),
    ('{"question": 1}', "has none of messages, prompt and completion, text"),
    ('{"prompt": "a"}', "completion is missing"),
    ('{"text": 3}', "text is not a string but a int"),
    ('{"messages": "hi"}', "messages is not a list but a str"),
    ('{"messages": [{"content": "x"}]}', "messages: message 1 is not an object with a role"),
    ('{"text": "\\ud800 x"}', "has half of a surrogate pair, which is no character"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_stops_at_too_many_bad_lines(run, tmp_path, line, reason):
    data = write_jsonl(tmp_path / "d.jsonl", [chat("a", "b"), line])
    code, error, _ = run(data)
    assert code == 65 and error["user_error"]
    assert error["message"] == f"{data}:2: {reason} (1 bad lines, 0 allowed; mend the file or raise data.max_bad_lines)"
    code, result, _ = run(data, "--max-bad-lines", 1)
    assert code == 0 and result["train_sequences"] == 1


def test_refuses_input_that_cannot_be_trained_on(run, model, tmp_path):
    data = write_jsonl(tmp_path / "ok.jsonl", [chat("a", "b")])
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    blank = write_jsonl(tmp_path / "blank.jsonl", ["", " "])
    silent = write_jsonl(tmp_path / "silent.jsonl", [{"messages": [{"role": "user", "content": "x"}]}] * 3)
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(data.read_bytes() * 100)[:-20])
    not_parquet = tmp_path / "d.parquet"
    not_parquet.write_bytes(b"PAR0 not parquet")
    cases = [
        (empty, f"{empty}: the file is empty"),
        (blank, f"{blank}: no examples"),
        (silent, f"{silent}: nothing to train on in 3 examples; reason of 3: no assistant turn"),
        (tmp_path / "none.jsonl", f"{tmp_path / 'none.jsonl'}: no such file"),
        (tmp_path / "d.csv", f"{tmp_path / 'd.csv'}: unknown kind of file; supported are .jsonl, .jsonl.gz, .jsonl.zst, .parquet"),
        (broken, f"{broken}: damaged gzip data: "),
        (not_parquet, f"{not_parquet}: damaged Parquet data: "),
    ]
    for path, message in cases:
        code, error, _ = run(path)
        assert (code, error["user_error"]) == (65, True)
        assert error["message"].startswith(message), error
    _, error, _ = run(data, length=129)
    assert error["message"] == "sequence_length (129) is above the model's max_position_embeddings (128)"
    small = make_model(tmp_path / "small", vocab_size=50)
    _, error, _ = run(data, model_dir=small)
    assert "its config.json has vocab_size 50: tokenizer and model do not belong together" in error["message"]
    bare = make_model(tmp_path / "bare", template="")
    _, error, _ = run(data, model_dir=bare)
    assert error["message"].startswith(f"{data}:1: the data has conversations, but the tokenizer of {bare} has no chat template")
    _, error, _ = run(data, model_dir=tmp_path)
    assert error["message"] == f"model directory {tmp_path} has no config.json"
    assert not any(name.startswith(".") for name in os.listdir(tmp_path / "out"))


def test_tells_turns_apart_where_a_beginning_is_no_prefix(run, tmp_path):
    thinks = make_model(tmp_path / "thinks", LAST_THINKS)
    two = {"messages": chat("what?", "a thing.")["messages"] + chat("is it?", "it is.")["messages"]}
    code, result, _ = run(write_jsonl(tmp_path / "d.jsonl", [two]), model_dir=thinks)
    assert code == 0, result
    assert texts(thinks, result["train_dir"]) == [
        (
            "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\na thing.<|im_end|>\n"
            "<|im_start|>user\nis it?<|im_end|>\n<|im_start|>assistant\n<think></think>it is.<|im_end|>\n",
            "a thing.<|im_end|>\n<think></think>it is.<|im_end|>\n",
        )
    ]


TOOL = {"role": "tool", "content": "42"}
# What is trained on, turn by turn, in conversations whose last turn is assistant("it is.").
REASONING = {
    "reasoning": ([user("a"), assistant("<think>\nhm\n</think>\n\nis it."), user("b")], "is it." + END),
    "reasoning alone": ([user("a"), assistant("<think>hm</think>"), user("b")], ""),
    "nothing said": ([user("a"), assistant(""), user("b")], END),
    "call without content": ([user("a"), assistant(None, "f"), TOOL], "<call>f</call>" + END),
    "call with empty content": ([user("a"), assistant("", "f"), TOOL], "<call>f</call>" + END),
    "two calls": ([user("a"), assistant("it.", "f", "g"), TOOL, TOOL], "it.\n<call>f</call>\n<call>g</call>" + END),
    "reasoning and a call": (
        [user("a"), assistant("<think>hm</think>", "f"), TOOL, assistant("<think>so</think>is it."), user("b")],
        "<call>f</call>" + END + "is it." + END,
    ),
    "reasoning, content and a call": (
        [user("a"), assistant("<think>hm</think>it.", "f"), TOOL, assistant("is it."), user("b")],
        "it.\n<call>f</call>" + END + "is it." + END,
    ),
    "reasoning that is kept": (
        [user("a"), assistant("<think>hm</think>it.", "f"), TOOL],
        "<think>hm</think>it.\n<call>f</call>" + END,
    ),
}


@pytest.mark.parametrize("case", REASONING)
def test_trains_on_what_the_template_keeps_of_reasoning_and_calls(run, tmp_path, case):
    from transformers import AutoTokenizer

    messages, trained = REASONING[case]
    messages = [*messages, assistant("it is.")]
    reasons = make_model(tmp_path / "reasons", REASONS)
    code, result, _ = run(write_jsonl(tmp_path / "d.jsonl", [{"messages": messages}]), model_dir=reasons, length=128)
    assert code == 0, result
    ((whole, targets),) = texts(reasons, result["train_dir"])
    assert targets == trained + "<think></think>it is." + END
    tokenizer = AutoTokenizer.from_pretrained(str(reasons))
    assert whole == tokenizer.apply_chat_template(messages, tokenize=False)
    ((ids, _),) = Split(result["train_dir"]).documents()
    assert ids == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]


def test_tells_a_call_apart_where_the_template_wants_one_before_its_answer(run, tmp_path):
    strict = make_model(tmp_path / "strict", REASONS_STRICTLY)
    messages = [user("a"), assistant("it.", "f"), TOOL, assistant("it is.")]
    code, result, _ = run(write_jsonl(tmp_path / "d.jsonl", [{"messages": messages}]), model_dir=strict, length=128)
    assert code == 0, result
    ((_, targets),) = texts(strict, result["train_dir"])
    assert targets == "it.\n<call>f</call>" + END + "<think></think>it is." + END


def test_refuses_a_template_whose_turns_cannot_be_told_apart(run, tmp_path):
    odd = make_model(tmp_path / "odd", ECHOES)
    two = {"messages": chat("a", "b")["messages"] + chat("c", "d")["messages"]}
    data = write_jsonl(tmp_path / "d.jsonl", [two])
    code, error, _ = run(data, model_dir=odd)
    assert code == 65
    assert error["message"].startswith(f"{data}:1: message 2 (assistant) cannot be told apart: the chat template renders the conversation ")
    assert "mark assistant turns in the template by {% generation %}" in error["message"]
    code, result, _ = run(data, "--train-on-all-tokens", model_dir=odd)
    assert code == 0 and result["train_targets"] > 10


def test_unwritable_output_is_an_io_error(run, tmp_path, model):
    data = write_jsonl(tmp_path / "d.jsonl", [chat("a", "b")])
    (tmp_path / "out").write_text("a file")
    code, error, _ = run(data)
    assert code == 74 and not error["user_error"]
    assert error["message"] == f"{tmp_path / 'out'}: File exists"


def test_as_a_program_two_runs_give_the_same_bytes(model, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [chat(f"what is {i}?", "it is " * (i % 9)) for i in range(300)])
    found = []
    for name in ("one", "two"):
        done = subprocess.run(
            [sys.executable, SOURCE / "tools/prepare_data.py", "--model", model, "--train", data]
            + ["--sequence-length", "64", "--output-dir", tmp_path / name, "--progress-json"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert all(0 <= line["progress"] <= 1 for line in lines[:-1])
        directory = lines[-1]["result"]["train_dir"]
        found.append([open(os.path.join(directory, file), "rb").read() for file in sorted(os.listdir(directory))])
    assert found[0] == found[1]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
