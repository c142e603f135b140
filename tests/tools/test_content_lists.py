"""Contents that are lists of parts: their text is trained on, or the line is a bad one."""

import sys

import pytest
from conftest import CHATML, LISTS, MARKED, PRINTS, REASONS, make_model
from prepared import Split, assistant, chat, texts, user, write_jsonl


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


TEMPLATES = {"strings": CHATML, "drops lists": REASONS, "marks": MARKED, "prints lists": PRINTS, "lists": LISTS}
MIXED = ["what ", {"type": None, "text": "is"}, {"type": "text", "text": ".", "image": None}]
CONVERSATIONS = {
    "system": [{"role": "system", "content": MIXED}, user("a"), assistant("it is.")],
    "user": [user(MIXED), assistant("it is.")],
    "earlier answer": [user("a"), assistant(MIXED), user("b"), assistant("it is.")],
    "last answer": [user("a"), assistant(MIXED)],
    "every turn": [user(parts("a")), assistant(MIXED), user(parts("b")), assistant(parts("it ", "is."))],
}


def in_form(form, content):
    """What `content` stands for: the template of that name takes it, and says all of it."""
    if isinstance(content, str):
        return content
    said = [part if isinstance(part, str) else part["text"] for part in content]
    return parts(*said) if form == "lists" else "".join(said)


@pytest.mark.parametrize("everything", [False, True], ids=["answers", "everything"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("case", CONVERSATIONS)
def test_texts_in_a_list_are_trained_on_like_a_string_where_the_template_takes_none(run, tmp_path, case, template, everything):
    from transformers import AutoTokenizer

    model = make_model(tmp_path / "model", TEMPLATES[template])
    plain = [{**message, "content": in_form(template, message["content"])} for message in CONVERSATIONS[case]]
    data = write_jsonl(tmp_path / "d.jsonl", [{"messages": CONVERSATIONS[case]}, {"messages": plain}])
    code, result, _ = run(data, *["--train-on-all-tokens"] * everything, model_dir=model, length=128)
    assert code == 0, result
    (whole, trained), of_plain = texts(model, result["train_dir"])
    assert (whole, trained) == of_plain
    assert whole == AutoTokenizer.from_pretrained(str(model)).apply_chat_template(plain, tokenize=False)
    assert "is" in trained


PART = 'give a string, or a list of {"type": "text", "text": ...} only'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}], "part 2 is of type 'image_url'"),
        ([{"type": "thinking", "thinking": "hm"}], "part 1 is of type 'thinking'"),
        ([{"type": "text", "content": "a"}], "part 1 has no text"),
        (["a", 3], "part 2 is of type 'int'"),
    ],
)
@pytest.mark.parametrize("template", ["drops lists", "lists"])
def test_a_content_with_a_part_that_is_no_text_is_a_bad_line(run, tmp_path, template, content, reason):
    model = make_model(tmp_path / "model", TEMPLATES[template])
    data = write_jsonl(tmp_path / "d.jsonl", [chat("a", "b"), {"messages": [user(content), assistant("it is.")]}])
    code, error, _ = run(data, model_dir=model)
    assert code == 65
    assert error["message"].startswith(f"{data}:2: messages: content of message 1: {reason}; {PART} (1 bad lines, 0 allowed;")
    completion = {"prompt": [user("a")], "completion": [assistant(content)]}
    write_jsonl(data, [chat("a", "b"), completion])
    code, error, _ = run(data, model_dir=model)
    assert error["message"].startswith(f"{data}:2: completion: content of message 1: {reason}; {PART} (1 bad lines, 0 allowed;")
    code, result, err = run(data, "--max-bad-lines", 1, model_dir=model)
    assert code == 0 and Split(result["train_dir"]).index["report"]["bad_lines"] == 1 and reason in err


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
