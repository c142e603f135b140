"""Examples as text with the character ranges that are trained on."""

import re
from dataclasses import dataclass

from transformers.utils.chat_template_utils import render_jinja_template

from . import messages as chat
from .errors import ExampleError, UserError

# Contents that share neither beginning nor end, to see where a template puts a content.
PROBES = ("1switchyard2", "3draythctiws4")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass
class Segment:
    """A piece of text that is tokenized by itself."""

    text: str
    spans: list  # [(begin, end)] in characters: what is trained on
    special: bool = False  # the tokenizer adds its special tokens (a beginning-of-text token, say)


@dataclass
class Rendered:
    """One example, ready for the tokenizer."""
    segments: list
    end_of_text: bool  # the end-of-text token follows and is trained on; chat templates end turns themselves


class Renderer:
    """`tokenizer` gives the chat template and its special tokens. With `everything` all text is trained on."""

    def __init__(self, tokenizer, everything=False):
        self.tokenizer = tokenizer
        self.everything = everything
        self.template = None
        self.marks_turns = False

    def __call__(self, example):
        """Rendered, or ExampleError with the reason."""
        rendered = self._example(example)
        if self.everything:
            for segment in rendered.segments:
                segment.spans = [(0, len(segment.text))]
        return rendered

    def _example(self, example):
        if "messages" in example:
            return self._chat(chat.checked(example["messages"], "messages"), 0, example.get("tools"))
        if "prompt" in example or "completion" in example:
            return self._prompt(example)
        if "text" in example:
            text = _string(example["text"], "text")
            return Rendered([Segment(text, [(0, len(text))], special=True)], True)
        raise ExampleError("has none of messages, prompt and completion, text")

    def _prompt(self, example):
        for key in ("prompt", "completion"):
            if key not in example:
                raise ExampleError(f"{key} is missing")
        prompt, completion = example["prompt"], example["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            messages = chat.checked(prompt, "prompt") + chat.checked(completion, "completion")
            return self._chat(messages, len(prompt), example.get("tools"))
        prompt, completion = _string(prompt, "prompt"), _string(completion, "completion")
        if not completion:
            raise ExampleError("completion is empty", bad=False)
        # Apart, because the prompt stands alone when the model is used: no token may span the boundary.
        parts = [Segment(prompt, [], special=True), Segment(completion, [(0, len(completion))])]
        return Rendered(parts, True)

    def _chat(self, messages, first_trained, tools):
        trained = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i >= first_trained]
        if not trained and not self.everything:
            raise ExampleError("no assistant turn", bad=False)
        self._find_template()
        if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
            raise ExampleError("tools must be a list of objects")
        messages = self._taken(messages, tools)
        if self.everything:
            return Rendered([Segment(self._render(messages, tools)[0], [])], False)
        if self.marks_turns:
            text, spans = self._render(messages, tools, mark=True)
            # Marks come one for each assistant turn, in order.
            turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
            if len(spans) != len(turns) and first_trained:
                raise ExampleError("the chat template does not mark each assistant turn once")
            if first_trained:
                spans = [span for turn, span in zip(turns, spans) if turn >= first_trained]
            return Rendered([Segment(text, [tuple(span) for span in spans])], False)
        return self._by_prefixes(messages, trained, tools)

    def _taken(self, messages, tools):
        """`messages` with lists of texts joined to strings where the template does not render such a list."""
        plain = [chat.joined(message) for message in messages]
        probe = [{"type": "text", "text": text} for text in PROBES]

        def takes_list(i):
            try:
                text, _ = self._render([*plain[:i], {**plain[i], "content": probe}, *plain[i + 1 :]], tools)
            except ExampleError:
                return False
            # Python's notation of the list is no rendering of it.
            return all(part in text for part in PROBES) and str(probe[0]) not in text

        return [m if m is plain[i] or takes_list(i) else plain[i] for i, m in enumerate(messages)]

    def _by_prefixes(self, messages, trained, tools):
        text, _ = self._render(messages, tools)
        spans = []
        for i in trained:
            begin, _ = self._render(messages[:i], tools, prompt=True)
            end, _ = self._render(messages[: i + 1], tools)
            if end.startswith(begin) and text.startswith(end):
                spans.append((len(begin), len(end)))
                continue
            # Templates such as Qwen3's render a turn otherwise once others follow (they drop its reasoning).
            span = self._by_substitution(messages, i, tools, text)
            if span is None:
                raise _not_a_prefix(i, begin, end, text)
            spans.append(span)
        return Rendered([Segment(text, spans)], False)

    def _by_substitution(self, messages, i, tools, text):
        """What `text` has of turn i, and what ends the turn behind it; empty when it has nothing; None when unsure."""
        # Bare at first: what else a message holds (tool calls, reasoning) is part of the turn like its content. But
        # there are templates that want a tool's answer behind a call only.
        for shell in ({"role": messages[i]["role"]}, messages[i]):
            try:
                span = self._around_probe(messages, i, shell, tools, text)
            except ExampleError:
                continue
            if span is not None:
                return span
        return None

    def _around_probe(self, messages, i, shell, tools, text):
        """The span in `text` of what a content put into `shell`, in the place of turn i, stands for."""

        def with_content(content, count):
            changed = [*messages[:i], {**shell, "content": content}, *messages[i + 1 :]]
            return self._render(changed[:count], tools)[0]

        one, two = with_content(PROBES[0], len(messages)), with_content(PROBES[1], len(messages))
        before, after = one.partition(PROBES[0])[::2]
        # The probe must come once, whole, with nothing else depending on it; then the same must hold for the turn.
        if before + PROBES[1] + after != two or PROBES[0] in after:
            return None
        begin, end = len(before), len(text) - len(after)
        if begin > end or not (text.startswith(before) and text.endswith(after)):
            return None
        kept = text[begin:end].strip()
        calls = [] if "tool_calls" in shell else chat.names_of_calls(messages[i])
        if not _may_be(kept, chat.text_of(messages[i]), calls):
            return None
        closing = with_content(PROBES[0], i + 1).partition(PROBES[0])[2]
        if not after.startswith(closing):
            return None
        if not kept and any(value for key, value in messages[i].items() if key != "role"):
            return begin, begin  # nobody said nothing here: its end is not to be learned
        return begin, end + len(closing)

    def _find_template(self):
        if self.template is not None:
            return
        try:
            self.template = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise UserError(
                f"the data has conversations, but the tokenizer of {self.tokenizer.name_or_path} has no chat template; "
                "add chat_template.jinja to the model directory, or use prompt/completion or text"
            ) from error
        self.marks_turns = GENERATION.search(self.template) is not None

    def _render(self, messages, tools, prompt=False, mark=False):
        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                tools=tools,
                chat_template=self.template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=mark,
                **self.tokenizer.special_tokens_map,
            )
        except Exception as error:  # a template may raise anything
            raise ExampleError(f"the chat template refuses it: {error}") from error
        return texts[0], spans[0] if mark else []


def _may_be(kept, content, calls):
    """Whether a template can have made `kept` of a message: its content, or the end of it (reasoning comes first)."""
    if calls:  # the template's own words stand around them
        return all(name in kept for name in calls)
    return content in kept or content.endswith(kept)


def _not_a_prefix(turn, begin, end, text):
    what, shorter, longer = ("the generation prompt", begin, end)
    if end.startswith(begin):
        what, shorter, longer = ("the conversation up to it", end, text)
    common = 0
    while common < min(len(shorter), len(longer)) and shorter[common] == longer[common]:
        common += 1
    near = slice(max(0, common - 20), common + 20)
    return UserError(
        f"message {turn + 1} (assistant) cannot be told apart: the chat template renders {what} as ...{shorter[near]!r} and "
        f"the longer text as ...{longer[near]!r}; mark assistant turns in the template by "
        "{% generation %}...{% endgeneration %}, or use --train-on-all-tokens"
    )


def _string(value, name):
    if not isinstance(value, str):
        raise ExampleError(f"{name} is not a string but a {type(value).__name__}")
    return value
