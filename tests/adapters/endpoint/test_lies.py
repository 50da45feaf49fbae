"""Whatever a server does, each picture gets an answer of its own or an error that says what happened."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tagging.adapters.base import NO_IMAGE, AdapterError, ModelUnavailable, Reply, Request
from tests.fakes.lying_server import Cut, Drip, Flood, Raw, Say, Status

from .conftest import ask


def test_an_answer_with_its_tokens_and_reason(endpoint, server):
    server.always(Say("a cat, a dog", usage={"prompt_tokens": 812, "completion_tokens": 7}))
    (reply,) = ask(endpoint(), system="You tag pictures.")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.finish_reason) == ("a cat, a dog", 812, 7, "stop")
    assert reply.flags == ()
    assert reply.seconds > 0
    sent = server.asked[0].body
    assert [m["role"] for m in sent["messages"]] == ["system", "user"]
    assert sent["messages"][0]["content"] == "You tag pictures."


def test_answers_come_in_the_order_of_the_batch(endpoint, server):
    server.always(lambda asked: Say(asked.prompt, seconds=0.6 if asked.prompt == "0" else 0.2))
    adapter = endpoint(concurrency=4)
    request = Request(adapter.options())
    batch = [adapter.prepare(NO_IMAGE, Request(adapter.options(), prompt=str(i))) for i in range(8)]
    assert [r.text for r in adapter.infer(batch, request)] == [str(i) for i in range(8)]
    assert server.most_in_flight == 4


def test_as_a_stream_they_come_as_they_are_ready(endpoint, server):
    others = threading.Event()

    def say(asked):
        if asked.prompt == "0":
            others.wait(20)
        if asked.prompt == "9":
            others.set()
        return Say(asked.prompt)

    server.always(say)
    adapter = endpoint(concurrency=2)
    request = Request(adapter.options())
    items = ((i, adapter.prepare(NO_IMAGE, Request(adapter.options(), prompt=str(i)))) for i in range(10))
    order = [answer[0] for answer in adapter.infer_stream(items, request) if answer is not None]
    assert sorted(order) == list(range(10))
    assert order.index(0) >= 8


def test_without_a_picture_the_message_is_plain_text(endpoint, server):
    (reply,) = ask(endpoint(), image=None, prompt="Which is better?")
    assert reply.text == "ok"
    assert server.asked[0].body["messages"] == [{"role": "user", "content": "Which is better?"}]


@pytest.mark.parametrize("failure", [Status(500, "boom"), Status(503), Cut(), Raw(b"{"), Raw(b"<html>", "text/html")])
def test_a_failure_of_the_server_is_tried_again(endpoint, server, failure):
    server.next(failure, failure)
    (reply,) = ask(endpoint())
    assert reply.text == "ok"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Status(500, "boom"), "answered 500: boom"),
        (Cut(), "line to 127.0.0.1 failed"),
        (Raw(b'{"choices": ['), "is not JSON"),
        (Raw(b"[1, 2]"), "no chat completion"),
        (Raw(b'{"choices": []}'), "no message in it"),
        (Raw(b'{"choices": [{"message": {"content": 5}}]}'), "is not text"),
        (Raw(b'{"error": {"message": "overloaded"}}'), "overloaded"),
        (Raw(b""), "is not JSON"),
    ],
)
def test_a_failure_that_stays_names_itself(endpoint, server, reply, words):
    server.always(reply)
    (error,) = ask(endpoint(retries=1))
    assert isinstance(error, AdapterError)
    assert not error.permanent
    assert words in error.message
    assert len(server.asked) == 2


def test_one_bad_request_among_good_ones_is_its_own_error(endpoint, server):
    server.next(Say("one"), Status(413, "the picture is too large"), Say("three"))
    found = ask(endpoint(concurrency=1), 3)
    assert [getattr(r, "text", None) for r in found] == ["one", None, "three"]
    assert found[1].permanent
    assert "too large" in found[1].message


def test_a_slow_reply_is_given_up(endpoint, server):
    server.always(Say(seconds=1.0))
    (error,) = ask(endpoint(read_timeout=0.2, retries=0))
    assert "did not answer in time" in error.message


def test_a_reply_that_drips_without_end_is_given_up(endpoint, server):
    server.always(Drip())
    began = time.monotonic()
    (error,) = ask(endpoint(total_timeout=0.5, retries=0))
    assert isinstance(error, AdapterError)
    assert time.monotonic() - began < 5


def test_a_reply_without_end_is_cut_off(endpoint, server):
    server.always(Flood())
    (error,) = ask(endpoint(retries=0))
    assert "larger than 8 MB" in error.message


def test_truncation_is_flagged(endpoint, server):
    server.always(Say("a cat, a d", "length"))
    (reply,) = ask(endpoint())
    assert (reply.text, reply.finish_reason, reply.flags) == ("a cat, a d", "length", ("truncated",))


@pytest.mark.parametrize(
    "said", [Say(None, refusal="I can't help with that."), Say("I'm sorry, but I can't assist with that request.")]
)
def test_a_refusal_is_a_flagged_result_whose_words_become_no_tags(endpoint, server, said):
    server.always(said)
    (reply,) = ask(endpoint())
    assert reply.text == ""
    assert reply.flags[0] == "refusal"
    assert "I" in reply.flags[1]


def test_a_description_that_begins_with_i_is_no_refusal(endpoint, server):
    server.always(Say("I can see a cat on a sofa"))
    assert ask(endpoint())[0].flags == ()


def test_filtered_content_is_a_flagged_result(endpoint, server):
    server.always(Say("", "content_filter"))
    (reply,) = ask(endpoint())
    assert (reply.finish_reason, reply.flags) == ("content_filter", ("content_filter",))


def test_the_model_that_an_alias_stands_for_is_kept(endpoint, server):
    server.always(Say(model="m-2026-01-31"))
    adapter = endpoint()
    assert ask(adapter)[0].flags == ("model=m-2026-01-31",)
    server.always(Say(model="m-2026-09-30"))
    assert ask(adapter)[0].flags == ("alias_moved", "model=m-2026-09-30")
    assert ask(adapter)[0].flags == ("model=m-2026-09-30",)


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (Status(401, "bad key sk-secret-1"), "Correct the key in TEST_API_KEY"),
        (Status(404, "model not found"), "/v1"),
        (Status(429, "You exceeded your current quota", "insufficient_quota"), "no credit"),
        (Status(500, "image input is not supported - hint: mmproj"), "takes no pictures"),
        (Status(302, headers={"Location": "http://169.254.169.254/latest"}), "not followed"),
    ],
)
def test_what_no_other_request_would_change_fails_the_run(endpoint, server, status, mend, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "sk-secret-1")
    server.always(status)
    with pytest.raises(ModelUnavailable, match=mend) as raised:
        ask(endpoint(api_key_env="TEST_API_KEY"), 3)
    assert "sk-secret-1" not in raised.value.message


def test_the_same_refusal_every_time_fails_the_run(endpoint, server):
    server.always(Status(400, "Unsupported value: 'temperature' does not support 0.2 with this model."))
    with pytest.raises(ModelUnavailable, match=r"Every request was refused the same way.*temperature"):
        ask(endpoint(concurrency=2), 30)
    assert len(server.asked) < 15


def test_a_server_that_is_not_there_fails_the_run(endpoint, server):
    adapter = endpoint(retries=1)
    server.close()
    with pytest.raises(ModelUnavailable, match="Start the server, or correct the address"):
        ask(adapter, 4)


def test_a_server_that_wants_the_new_name_of_the_limit_gets_it(endpoint, server):
    def strict(asked):
        if "max_tokens" in asked.body:
            return Status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return Say(str(asked.body["max_completion_tokens"]))

    server.always(strict)
    adapter = endpoint(max_tokens=77)
    assert ask(adapter)[0].text == "77"
    ask(adapter)
    assert len(server.asked) == 3


def test_keys_and_headers(endpoint, server, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "sk-secret-1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another")
    ask(endpoint(api_key_env="TEST_API_KEY"))
    ask(endpoint())
    first, second = (a.headers for a in server.asked)
    assert first["authorization"] == "Bearer sk-secret-1"
    assert "authorization" not in second
    assert "another" not in json.dumps([first, second])


def test_options_are_sent_under_the_names_that_servers_know(endpoint, server):
    ask(
        endpoint(
            temperature=None,
            top_p=0.9,
            top_k=40,
            min_p=0.05,
            seed=7,
            stop=["\n\n"],
            frequency_penalty=0.5,
            repetition_penalty=1.1,
            detail="low",
            extra_body={"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
        ),
        sample=2,
    )
    body = server.asked[0].body
    assert "temperature" not in body
    assert {k: body[k] for k in ("top_p", "top_k", "min_p", "seed", "stop", "frequency_penalty")} == {
        "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 9, "stop": ["\n\n"], "frequency_penalty": 0.5,
    }  # fmt: skip
    assert body["repetition_penalty"] == body["repeat_penalty"] == 1.1
    assert body["reasoning_effort"] == "low"
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["messages"][0]["content"][1]["image_url"]["detail"] == "low"
