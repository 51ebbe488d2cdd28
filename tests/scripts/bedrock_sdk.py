"""bedrock_sdk.py REGION: boto3 as an agent would use Bedrock, with keys that are worth nothing."""

import json
import sys

import boto3
from botocore.config import Config

from common import tell

MODEL = "anthropic.claude-haiku-4-5-v1:0"
ASK = [{"role": "user", "content": [{"text": "What of the law?"}]}]
BODY = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": [{"role": "user", "content": "What of the law?"}]}
)

session = boto3.Session("DUMMYID", "DUMMYSECRET", "DUMMYTOKEN", region_name=sys.argv[1])
client = session.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}))


def counted(usage):
    """What the SDK was told, under the names that spans have for it."""
    return {
        "input_tokens": usage["inputTokens"],
        "output_tokens": usage["outputTokens"],
        "cache_read.input_tokens": usage["cacheReadInputTokens"],
        "cache_creation.input_tokens": usage["cacheWriteInputTokens"],
    }


def of_claude(usage):
    return {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read.input_tokens": usage["cache_read_input_tokens"],
        "cache_creation.input_tokens": usage["cache_creation_input_tokens"],
    }


limits = {"maxTokens": 700}
whole = client.converse(modelId=MODEL, messages=ASK, inferenceConfig=limits)
text = whole["output"]["message"]["content"][0]["text"]
tell(call="converse", text=text, usage=counted(whole["usage"]))

text, usage = "", None
for event in client.converse_stream(modelId=MODEL, messages=ASK, inferenceConfig=limits)["stream"]:
    if "contentBlockDelta" in event:
        text += event["contentBlockDelta"]["delta"]["text"]
    elif "metadata" in event:
        usage = event["metadata"]["usage"]
tell(call="converse-stream", text=text, usage=counted(usage))

whole = json.loads(client.invoke_model(modelId=MODEL, body=BODY)["body"].read())
tell(call="invoke", text=whole["content"][0]["text"], usage=of_claude(whole["usage"]))

text, usage = "", {}
for event in client.invoke_model_with_response_stream(modelId=MODEL, body=BODY)["body"]:
    piece = json.loads(event["chunk"]["bytes"])
    text += piece.get("delta", {}).get("text", "")
    usage |= piece.get("message", {}).get("usage", {}) | piece.get("usage", {})
tell(call="invoke-with-response-stream", text=text, usage=of_claude(usage))
