"""anthropic_sdk.py CALL...: the real Anthropic SDK, as an agent would use it: nothing is set but the
key it believes in. The calls are create, stream and count."""

import os
import sys
import time

import anthropic
from common import tell

MODEL = "claude-haiku-4-5"
ASK = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "What of the door?"}],
}

client = anthropic.Anthropic(
    api_key=os.environ.get("ANTHROPIC_API_KEY", "clrk-injected-by-proxy"), max_retries=0
)


def counted(usage):
    """What the SDK was told, under the names that spans have for it."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read.input_tokens": usage.cache_read_input_tokens,
        "cache_creation.input_tokens": usage.cache_creation_input_tokens,
    }


def create():
    message = client.messages.create(**ASK)
    tell(
        call="create",
        text=message.content[0].text,
        input_tokens=message.usage.input_tokens,
        output_tokens=message.usage.output_tokens,
        usage=counted(message.usage),
    )


def stream():
    arrivals, pieces = [], []
    with client.messages.stream(**ASK) as events:
        for piece in events.text_stream:
            arrivals.append(time.monotonic())
            pieces.append(piece)
        final = events.get_final_message()
    tell(
        call="stream",
        pieces=pieces,
        spread_ms=int((arrivals[-1] - arrivals[0]) * 1000),
        output_tokens=final.usage.output_tokens,
        usage=counted(final.usage),
        stop_reason=final.stop_reason,
    )


def count():
    counted = client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
    tell(call="count", input_tokens=counted.input_tokens)


for name in sys.argv[1:]:
    {"create": create, "stream": stream, "count": count}[name]()
