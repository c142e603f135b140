"""The dictionary parser on small dictd files, and on the real dictionary when it is installed."""

import gzip
import json
import os
import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import foldoc  # noqa: E402

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

COMPILER = """compiler
translator

   <programming, tool> A program that converts another program from
   {source language} ({programming language}) to {machine language}.  See
   {interpreter (interpreter.html)}.

   [{Jargon File}]

   (1997-05-22)

"""
REDIRECT = """cc

   {compiler}.

"""


def encode(number):
    digits = ""
    while True:
        digits = DIGITS[number % 64] + digits
        number //= 64
        if number == 0:
            return digits


def write_dictionary(directory, entries, extra_index=""):
    text, index = b"", ""
    for word, entry in entries:
        index += f"{word}\t{encode(len(text))}\t{encode(len(entry.encode()))}\n"
        text += entry.encode()
    (directory / "a.index").write_text(index + extra_index)
    with gzip.open(directory / "a.dict.dz", "wb") as file:
        file.write(text)
    return directory / "a.index", directory / "a.dict.dz"


def test_numbers_are_base_64_with_the_most_significant_digit_first():
    assert [foldoc.decode_number(text) for text in ("A", "/", "BA", "BCy")] == [0, 63, 64, 4274]


def test_each_headword_asks_for_the_cleaned_definition():
    examples = foldoc.examples_of(COMPILER, 400)
    answer = (
        "A program that converts another program from source language (programming language) to machine language. "
        "See interpreter."
    )
    assert [example["messages"] for example in examples] == [
        [{"role": "user", "content": f"What is {word}?"}, {"role": "assistant", "content": answer}]
        for word in ("compiler", "translator")
    ]


def test_a_bare_cross_reference_is_no_example():
    assert foldoc.examples_of(REDIRECT, 400) == []


def test_a_long_answer_ends_with_a_whole_sentence():
    assert foldoc.shorten("One. Two three. Four five six.", 20) == "One. Two three."
    assert foldoc.shorten("no sentence ends here", 10) == ""


def test_headwords_of_one_entry_are_on_one_side_of_the_split_and_counted_once(tmp_path):
    entries = [(f"w{i}", COMPILER.replace("compiler", f"compiler {i}", 1)) for i in range(300)]
    second_name = f"alias\tA\t{encode(len(entries[0][1]))}\n"  # one entry listed twice
    index, dictionary = write_dictionary(tmp_path, entries, extra_index=second_name)
    counts = foldoc.convert(index, dictionary, tmp_path / "out", 10, 400)
    assert counts["train"] + counts["eval"] == 600
    assert 20 <= counts["eval"] <= 120 and counts["eval"] % 2 == 0
    asked = {
        split: {json.loads(line)["messages"][0]["content"] for line in (tmp_path / "out" / f"{split}.jsonl").open()}
        for split in ("train", "eval")
    }
    assert "What is translator?" in asked["train"]
    numbered = {split: {q for q in questions if "compiler" in q} for split, questions in asked.items()}
    assert not numbered["train"] & numbered["eval"]


def test_a_rerun_writes_the_same_bytes(tmp_path):
    index, dictionary = write_dictionary(tmp_path, [("a", COMPILER), ("b", REDIRECT)])
    for name in ("one", "two"):
        foldoc.convert(index, dictionary, tmp_path / name, 50, 400)
    for split in ("train.jsonl", "eval.jsonl"):
        assert (tmp_path / "one" / split).read_bytes() == (tmp_path / "two" / split).read_bytes()


@pytest.mark.parametrize("line", ["word only\n", "a\tB!\tC\n", "a\tAA\t////\n"])
def test_a_damaged_index_is_refused_with_its_line(tmp_path, line):
    index, dictionary = write_dictionary(tmp_path, [("a", COMPILER)], extra_index=line)
    with pytest.raises(ValueError, match=r"a\.index:2: "):
        foldoc.convert(index, dictionary, tmp_path / "out", 10, 400)


def test_a_missing_dictionary_names_the_package(tmp_path):
    command = [sys.executable, str(TOOLS / "foldoc.py"), "--index", str(tmp_path / "none"), "--output", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "install Debian's package dict-foldoc" in finished.stderr


@pytest.mark.skipif(not os.path.exists("/usr/share/dictd/foldoc.index"), reason="dict-foldoc is not installed")
def test_the_real_dictionary_gives_thousands_of_clean_examples(tmp_path):
    subprocess.run([sys.executable, str(TOOLS / "foldoc.py"), "--output", str(tmp_path)], check=True)
    answers = [
        json.loads(line)["messages"][1]["content"]
        for split in ("train", "eval")
        for line in (tmp_path / f"{split}.jsonl").open()
    ]
    assert len(answers) > 12000
    braces = [answer for answer in answers if "{" in answer or "}" in answer]
    assert not braces, braces[:3]
    assert sum("  " in answer or "\n" in answer for answer in answers) == 0
