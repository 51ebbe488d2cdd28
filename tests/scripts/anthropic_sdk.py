"""The real Anthropic SDK, as an agent would use it: nothing is set but the key it believes in."""

import os
import time

import anthropic
from common import tell

MODEL = "claude-sonnet-4-5"
ASK = {
    "model": MODEL,
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "What of the door?"}],
}

client = anthropic.Anthropic(
    api_key=os.environ.get("ANTHROPIC_API_KEY", "clrk-injected-by-proxy"), max_retries=0
)

message = client.messages.create(**ASK)
tell(
    call="create",
    text=message.content[0].text,
    input_tokens=message.usage.input_tokens,
    output_tokens=message.usage.output_tokens,
)

arrivals, pieces = [], []
with client.messages.stream(**ASK) as stream:
    for piece in stream.text_stream:
        arrivals.append(time.monotonic())
        pieces.append(piece)
    final = stream.get_final_message()
tell(
    call="stream",
    pieces=pieces,
    spread_ms=int((arrivals[-1] - arrivals[0]) * 1000),
    output_tokens=final.usage.output_tokens,
    stop_reason=final.stop_reason,
)

count = client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
tell(call="count", input_tokens=count.input_tokens)
