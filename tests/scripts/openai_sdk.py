"""The real OpenAI SDK, as an agent would use it: nothing is set but the key it believes in."""

import os
import time

import openai
from common import tell

MODEL = "gpt-4.1-mini"
MESSAGES = [{"role": "user", "content": "What of the gap?"}]

client = openai.OpenAI(
    api_key=os.environ.get("OPENAI_API_KEY", "clrk-injected-by-proxy"), max_retries=0
)

whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
tell(
    call="chat",
    text=whole.choices[0].message.content,
    input_tokens=whole.usage.prompt_tokens,
    output_tokens=whole.usage.completion_tokens,
)

arrivals, pieces, usage = [], [], None
for chunk in client.chat.completions.create(
    model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
):
    if chunk.choices and chunk.choices[0].delta.content:
        arrivals.append(time.monotonic())
        pieces.append(chunk.choices[0].delta.content)
    usage = chunk.usage or usage
tell(
    call="chat-stream",
    pieces=pieces,
    spread_ms=int((arrivals[-1] - arrivals[0]) * 1000),
    output_tokens=usage.completion_tokens,
)

response = client.responses.create(model=MODEL, input="What of the gap?")
tell(call="responses", text=response.output_text, output_tokens=response.usage.output_tokens)

pieces, final = [], None
for event in client.responses.create(model=MODEL, input="What of the gap?", stream=True):
    if event.type == "response.output_text.delta":
        pieces.append(event.delta)
    elif event.type == "response.completed":
        final = event.response
tell(call="responses-stream", pieces=pieces, output_tokens=final.usage.output_tokens)

vectors = client.embeddings.create(model="text-embedding-3-small", input="gap")
tell(call="embeddings", vector=vectors.data[0].embedding, input_tokens=vectors.usage.prompt_tokens)
