"""The real google-genai SDK, as an agent would use it: nothing is set but the key it believes in."""

import os

from common import tell
from google import genai

MODEL = "gemini-2.5-flash"

client = genai.Client(api_key=os.environ.get("GEMINI_API_KEY", "clrk-injected-by-proxy"))


def counted(usage):
    """What the SDK was told, under the names that spans have for it."""
    return {
        "input_tokens": usage.prompt_token_count,
        "output_tokens": usage.candidates_token_count,
        "cache_read.input_tokens": usage.cached_content_token_count,
        "reasoning.output_tokens": usage.thoughts_token_count,
    }


whole = client.models.generate_content(model=MODEL, contents="What of the road?")
tell(call="generate", text=whole.text, usage=counted(whole.usage_metadata))

pieces, last = [], None
for chunk in client.models.generate_content_stream(model=MODEL, contents="What of the road?"):
    pieces.append(chunk.text)
    last = chunk.usage_metadata
tell(call="stream", pieces=pieces, usage=counted(last))

total = client.models.count_tokens(model=MODEL, contents="What of the road?")
tell(call="count", input_tokens=total.total_tokens)
