"""What a server may do wrong, each told in one line that says what to do; and what is never told."""

import json
import socket

import pytest
from serving import serving
from tiny import tiny_model, tiny_tokenizer

import alignguard.model.endpoint as endpoint
from alignguard import AlignGuardError
from alignguard.errors import EngineError
from alignguard.model.chat import Chat
from alignguard.model.endpoint import Endpoint
from alignguard.model.meeting import meet

SECRET = "sk-a-secret"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "_PAUSE", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def met(server, chat, asked=None, model="MODEL", **more):
    return meet(Endpoint(server.url, **more), asked, model, chat, 1024, 2)


def told(model, tokenizer, asked=None, **like):
    """In what words it is refused."""
    with serving(model, tokenizer, **like) as server, pytest.raises(EngineError) as caught:
        met(server, Chat.of(model, tokenizer), asked)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"key": "right"}, "answers 401 (wrong key None [31m); no key was sent: set OPENAI_API_KEY"),
        ({"names": ["a", "b"]}, "serves several models, and none is called MODEL; give --engine-model one of: a, b"),
        ({"adds": 1}, "tokens where"),
        ({"raw": b"<html>a page</html>"}, "answers with a web page"),
        ({"raw": b"{not json"}, "answers with no JSON ({not json)"),
        ({"raw": b"[" * 100_000}, "answers with no JSON"),
        ({"raw": b'{"choices": [{"text": "a", "x": NaN}]}'}, "answers with no JSON"),
        ({"raw": b"[1]"}, "answers with a list, where a JSON object is expected"),
        ({"raw": b"{}"}, "answers without a completion (choices: None)"),
        ({"raw": b'{"choices": []}'}, "answers without a completion (choices: [])"),
        ({"raw": b'{"choices": [7]}'}, "answers without a completion (choices: [7])"),
        ({"raw": b'{"choices": [{"text": 7, "finish_reason": "stop"}]}'}, "answers what cannot be read (text 7"),
        ({"wrong": {"finish_reason": "content_filter"}}, "finish_reason content_filter"),
        ({"wrong": {"token_ids": [10**6]}}, "tokens that the tokenizer does not know; is MODEL the model that it serves?"),
        ({"wrong": {"text": "", "token_ids": [], "finish_reason": "length"}}, "says nothing, and does not end its answer either"),
        ({"size": 12}, "answers 400 (maximum context length is 12 tokens); start it with a longer context"),
        ({"fails": [(302, {"Location": "http://example.org/"}, b"")]}, "is not followed: give --engine that address itself"),
        ({"fails": [(503, {}, b"busy")] * 6}, "answers 503 (busy), 6 times; is the server overloaded?"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_line(model, tokenizer, like, words):
    assert words in told(model, tokenizer, **like)


def test_a_model_that_is_not_served_is_told_with_those_that_are(model, tokenizer):
    assert "serves no 'huge'; give --engine-model one of: tiny" in told(model, tokenizer, asked="huge")


def test_a_server_that_lists_no_models_is_asked_for_the_one_that_was_named(model, tokenizer, monkeypatch):
    with serving(model, tokenizer) as server:
        monkeypatch.setattr(type(server), "answer", lambda self, path, body, key: (404, {}))
        with pytest.raises(
            EngineError, match=r"answers 404 \({}\); is the model called 'huge' there \(--engine-model\), and does the"
        ):
            met(server, Chat.of(model, tokenizer), "huge")


@pytest.mark.parametrize("ids_back", ["token_ids", "content"])
def test_another_tokenizer_is_told_before_anything_is_asked(model, tokenizer, ids_back):
    def reads(text):
        ids = tokenizer(text)["input_ids"]
        return {"input_ids": ids[::-1] if ids_back == "token_ids" else ids[:-1]}

    words = told(model, tokenizer, reads=reads, ids_back=ids_back)
    assert "reads text as other tokens than MODEL's tokenizer does: give as MODEL the model that it serves" in words


@pytest.mark.parametrize("ids_back", ["token_ids", "content", None])
def test_tags_that_text_may_lack_are_asked_of_a_server_that_tells_token_ids(ids_back):
    """Many servers leave special tokens out of a text: a trace would be read as the answer."""
    tokenizer = tiny_tokenizer(think_tokens=["[THINK]", "[/THINK]"])
    model, text_alone = tiny_model(tokenizer), {"ids_back": ids_back, "logprobs": ids_back == "content"}
    with serving(model, tokenizer, **text_alone) as server:
        met(server, Chat.of(model, tokenizer))  # in the usual form, whose tags are text
        chat = Chat.of(model, tokenizer, tags=("[THINK]", "[/THINK]"))
        if ids_back is not None:
            assert met(server, chat).tells_ids
            return
        with pytest.raises(
            EngineError, match=r"text alone may lack \[THINK\] and \[/THINK\], which are special tokens"
        ) as caught:
            met(server, chat)
    assert "ask a server that tells token ids" in str(caught.value)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_trace_that_is_put_aside_is_told(model, tokenizer, name):
    words = told(model, tokenizer, ids_back=None, logprobs=False, wrong={name: "hm"})
    assert f"puts traces aside ({name}); start it without a reasoning parser" in words
    with serving(model, tokenizer, wrong={name: "hm"}) as server:
        met(server, Chat.of(model, tokenizer))  # its token ids are all that was said
    with serving(model, tokenizer, ids_back=None, wrong={name: ""}) as server:
        served = met(server, Chat.of(model, tokenizer))
        server.wrong = {name: "hm"}
        with pytest.raises(EngineError, match="puts traces aside"):
            served.go_on([5, 6, 7], 4)


def test_text_that_lacks_most_of_what_was_said_is_refused(model, tokenizer):
    silent = {"ids_back": None, "logprobs": False}
    for text in ("The answer", " "):
        words = told(model, tokenizer, **silent, wrong={"text": text})
        assert "counts 32 tokens, and its text has" in words and "leaves out some of what is said" in words
    # fewer tokens than were said are no sign of it where one repeats, since a tokenizer joins those
    for like in ({"wrong": {"text": "!" * 32}}, {"wrong": {"text": "The answer"}, "counts": False}, {}):
        with serving(model, tokenizer, **silent, **like) as server:
            assert not met(server, Chat.of(model, tokenizer)).tells_ids


def test_a_prompt_that_text_does_not_give_again_is_refused_where_token_ids_are(model, tokenizer):
    with serving(model, tokenizer, takes_ids=False, ids_back=None) as server:
        served = met(server, Chat.of(model, tokenizer))
        assert served.as_text
        apart = [token for letter in "door" for token in tokenizer.encode(letter)]  # which as text is fewer
        with pytest.raises(
            EngineError, match=r"takes no prompts as token ids, and as text one would be others \(door\)"
        ):
            served.go_on(apart, 4)


def test_a_busy_server_and_a_line_that_went_dead_are_asked_again(model, tokenizer):
    with serving(model, tokenizer) as server:
        served = met(server, Chat.of(model, tokenizer))
        plain = served.go_on([5, 6, 7], 4)
        server.fails = [
            (429, {"Retry-After": "0"}, b""),
            (500, {}, b""),
            (None, {}, b""),
            (503, {"Retry-After": "x"}, b""),
        ]
        assert served.go_on([5, 6, 7], 4) == plain and not server.fails


def test_an_answer_that_is_too_large_is_not_read(model, tokenizer, monkeypatch):
    monkeypatch.setattr(endpoint, "_MOST", 1 << 20)
    assert "answers with more than 1 MiB" in told(model, tokenizer, raw=b" " * (2 << 20))


def test_a_server_that_is_not_there_and_one_that_has_gone(model, tokenizer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(
        EngineError, match=f"nothing listens there; start the server first, e.g. vllm serve MODEL --port {port}"
    ):
        Endpoint(f"http://127.0.0.1:{port}/v1").get(f"http://127.0.0.1:{port}/v1/models")
    with serving(model, tokenizer) as server:
        served = met(server, Chat.of(model, tokenizer))
    with pytest.raises(EngineError, match="was there, and cannot be reached any more"):
        served.go_on([5, 6, 7], 4)
    with pytest.raises(EngineError, match="cannot be reached"):
        Endpoint("http://no-such-host.invalid/v1").get("http://no-such-host.invalid/v1/models")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://a/v1",
        "http://",
        "http://a:x/v1",
        "http://a:b@c/v1",
        "https://c/v1?key=x",
        "http://c/v1#x",
    ],
)
def test_an_address_is_one_and_holds_no_secret(url):
    with pytest.raises(EngineError, match="an address") as caught:
        Endpoint(url)
    assert "a:b" not in str(caught.value) and "key=x" not in str(caught.value)


def test_a_key_is_sent_where_it_is_meant_to_go_and_never_told(model, tokenizer, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MINE", "other-" + SECRET)
    with serving(model, tokenizer) as server:
        met(server, Chat.of(model, tokenizer))
        assert server.keys == {f"Bearer {SECRET}"}
        server.keys.clear()
        met(server, Chat.of(model, tokenizer), key_env="MINE")
        assert server.keys == {f"Bearer other-{SECRET}"}
    words = told(model, tokenizer, key="right")
    assert SECRET not in words and "wrong key Bearer ..." in words and "the key is that of OPENAI_API_KEY" in words
    assert not Endpoint("http://10.0.0.1:8000/v1")._key  # in plain text, to whoever listens there
    assert Endpoint("https://models.example.org/v1")._key == SECRET == Endpoint("http://[::1]/v1")._key
    assert Endpoint("http://10.0.0.1:8000/v1", "MINE")._key
    with pytest.raises(EngineError, match="--engine-key-env NONE: no such environment variable is set"):
        Endpoint("http://10.0.0.1:8000/v1", "NONE")
    monkeypatch.setenv("MINE", f"{SECRET}\nHost: x")
    with pytest.raises(EngineError, match="MINE holds no key") as caught:
        Endpoint("http://10.0.0.1:8000/v1", "MINE")
    assert SECRET not in str(caught.value)


def test_no_proxy_stands_between_this_machine_and_itself(model, tokenizer, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(model, tokenizer) as server:
        assert met(server, Chat.of(model, tokenizer)).name == "tiny"


def test_the_first_job_that_fails_ends_the_others(model, tokenizer):
    with serving(model, tokenizer) as server:
        served = met(server, Chat.of(model, tokenizer))
        asked = len(server.asked)
        server.raw = json.dumps({"choices": None}).encode()
        with pytest.raises(AlignGuardError, match="without a completion"):
            served.each([lambda: served.go_on([5, 6, 7], 4)] * 200)
        assert len(server.asked) - asked < 150
