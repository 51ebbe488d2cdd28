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



def counted(usage):
    """What the SDK was told, under the names that spans have for it."""
    given = getattr(usage, "prompt_tokens", None)
    if given is None:
        given, made = usage.input_tokens, usage.output_tokens
        details, more = usage.input_tokens_details, usage.output_tokens_details
    else:
        # Embeddings have no output.
        made = getattr(usage, "completion_tokens", None)
        details = getattr(usage, "prompt_tokens_details", None)
        more = getattr(usage, "completion_tokens_details", None)
    return {
        "input_tokens": given,
        "output_tokens": made,
        "cache_read.input_tokens": details and details.cached_tokens,
        "reasoning.output_tokens": more and more.reasoning_tokens,
    }


whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
tell(
    call="chat",
    text=whole.choices[0].message.content,
    input_tokens=whole.usage.prompt_tokens,
    output_tokens=whole.usage.completion_tokens,
    usage=counted(whole.usage),
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
    usage=counted(usage),
)

response = client.responses.create(model=MODEL, input="What of the gap?")
tell(call="responses", text=response.output_text, usage=counted(response.usage))

pieces, final = [], None
for event in client.responses.create(model=MODEL, input="What of the gap?", stream=True):
    if event.type == "response.output_text.delta":
        pieces.append(event.delta)
    elif event.type == "response.completed":
        final = event.response
tell(call="responses-stream", pieces=pieces, usage=counted(final.usage))

vectors = client.embeddings.create(model="text-embedding-3-small", input="gap")
tell(call="embeddings", vector=vectors.data[0].embedding, usage=counted(vectors.usage))
