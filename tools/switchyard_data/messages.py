"""Messages of conversations: what an example may hold, and contents that are lists of texts."""

from .errors import ExampleError


def checked(value, name):
    """The messages of `value`, parts of lists as {"type": "text", "text": ...}; ExampleError naming `name` and the message."""
    if not isinstance(value, list):
        raise ExampleError(f"{name} is not a list but a {type(value).__name__}")
    messages = []
    for i, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ExampleError(f"{name}: message {i} is not an object with a role")
        content = message.get("content")
        if isinstance(content, list):
            where = f"{name}: content of message {i}"
            parts = [{"type": "text", "text": _text_of_part(part, f"{where}: part {k}")} for k, part in enumerate(content, 1)]
            message = {**message, "content": parts}
        elif not isinstance(content, (str, type(None))):
            raise ExampleError(f"{name}: content of message {i} is not a string")
        messages.append(message)
    return messages


def _text_of_part(part, where):
    # Only text is trained on: what else a template may put in a part's place would be learned without it.
    if isinstance(part, str):
        return part
    kind = (part.get("type") or "text") if isinstance(part, dict) else type(part).__name__
    if kind != "text":
        what = f"is of type {kind!r}"
    elif not isinstance(part.get("text"), str):
        what = "has no text"
    else:
        return part["text"]
    raise ExampleError(f'{where} {what}; give a string, or a list of {{"type": "text", "text": ...}} only')


def joined(message):
    """`message` with one string for a list of texts."""
    content = message.get("content")
    return {**message, "content": "".join(part["text"] for part in content)} if isinstance(content, list) else message


def text_of(message):
    """What its content says."""
    return (joined(message).get("content") or "").strip()


def names_of_calls(message):
    """Names of the functions that it calls."""
    calls = message.get("tool_calls")
    functions = [call.get("function", call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [str(function.get("name", "")) for function in functions if isinstance(function, dict)]
