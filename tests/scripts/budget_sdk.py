"""budget_sdk.py CALL...: real SDKs at metered.test under a token budget, and in which words they hear of it.

The calls: anthropic-stream (cut off), openai-over (more output than is granted), openai-plain (without a bound),
openai-uncounted (a stream at the real name, that was not asked to count), azure."""

import sys
import time

import anthropic
import openai
from common import tell

BASE = "https://metered.test"
KEY = "clrk-injected-by-proxy"
MESSAGES = [{"role": "user", "content": "Say as much as you may."}]


def anthropic_stream():
    client = anthropic.Anthropic(base_url=BASE, api_key=KEY)
    pieces, error = 0, None
    try:
        with client.messages.stream(model="m", max_tokens=64, messages=MESSAGES) as events:
            for _ in events.text_stream:
                pieces += 1
    except anthropic.APIStatusError as raised:
        error = raised
    tell(call="anthropic-stream", pieces=pieces, kind=type(error).__name__, body=error and error.body)


def openai_over():
    client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY)
    begun, error = time.monotonic(), None
    try:
        client.chat.completions.create(model="m", max_tokens=5000, messages=MESSAGES)
    except openai.APIStatusError as raised:
        error = raised
    tell(
        call="openai-over",
        kind=type(error).__name__,
        status=error and error.status_code,
        body=error and error.response.json(),
        seconds=time.monotonic() - begun,
    )


def openai_plain():
    client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY)
    said = client.chat.completions.create(model="m", messages=MESSAGES)
    tell(call="openai-plain", tokens=said.usage.total_tokens)


def openai_uncounted():
    client = openai.OpenAI(api_key=KEY)
    stream = client.chat.completions.create(model="gpt-4.1-mini", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    tell(call="openai-uncounted", text="".join(pieces))


def azure():
    client = openai.AzureOpenAI(azure_endpoint=BASE, api_key=KEY, api_version="2024-10-21")
    said = client.chat.completions.create(model="deployed", max_tokens=7, messages=MESSAGES)
    tell(call="azure", tokens=said.usage.total_tokens, output=said.usage.completion_tokens)


for name in sys.argv[1:]:
    {
        "anthropic-stream": anthropic_stream,
        "openai-over": openai_over,
        "openai-plain": openai_plain,
        "openai-uncounted": openai_uncounted,
        "azure": azure,
    }[name]()
