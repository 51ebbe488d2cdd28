"""bedrock_mock.py ADDRESS CERTIFICATE KEY: Bedrock's runtime as far as its SDK looks: a model that says three words,
by Converse and by invocation of a Claude, whole and as an event stream.

Signatures are checked as by aws_mock.py. It tells the session token that it was given, as it never should: in a header, and in a text
that is no event stream, whose checksums would tell of a change."""

import base64
import binascii
import json
import struct
import sys

from werkzeug.serving import make_server

from aws_mock import Handler, Wrong, check
from common import tell

PIECES = ["By ", "the ", "book."]
CONVERSE = {"inputTokens": 30, "outputTokens": 628, "totalTokens": 658, "cacheReadInputTokens": 12, "cacheWriteInputTokens": 4}
INVOKE = {"input_tokens": 31, "output_tokens": 17, "cache_read_input_tokens": 13, "cache_creation_input_tokens": 5}


def message(kind, payload):
    """One message of an event stream: lengths, headers, payload, checksums."""
    headers = b""
    for name, value in [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")]:
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    start = struct.pack(">II", len(headers) + len(body) + 16, len(headers))
    start += struct.pack(">I", binascii.crc32(start))
    return start + headers + body + struct.pack(">I", binascii.crc32(start + headers + body))


def converse():
    yield message("messageStart", {"role": "assistant"})
    for piece in PIECES:
        yield message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
    yield message("contentBlockStop", {"contentBlockIndex": 0})
    yield message("messageStop", {"stopReason": "end_turn"})
    yield message("metadata", {"usage": CONVERSE, "metrics": {"latencyMs": 551}})


def invoke(model):
    said = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": model, "content": []}
    events = [{"type": "message_start", "message": said | {"usage": INVOKE | {"output_tokens": 1}}}]
    events += [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in PIECES]
    events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": INVOKE["output_tokens"]}}]
    metrics = {"inputTokenCount": INVOKE["input_tokens"], "outputTokenCount": INVOKE["output_tokens"],
               "cacheReadInputTokenCount": INVOKE["cache_read_input_tokens"],
               "cacheWriteInputTokenCount": INVOKE["cache_creation_input_tokens"]}
    events += [{"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}]
    for event in events:
        yield message("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()})


def application(keys):
    def answer(environ, start):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        path = environ["PATH_INFO"]
        try:
            check(environ, body, keys)
        except Wrong as wrong:
            tell(path=path, wrong=str(wrong))
            start("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        tell(path=path, body=json.loads(body))
        told = environ["HTTP_X_AMZ_SECURITY_TOKEN"]
        _, _, model, call = path.split("/")
        if call.endswith("-stream"):
            start("200 OK", [("Content-Type", "application/vnd.amazon.eventstream"), ("x-told", told)])
            return converse() if call == "converse-stream" else invoke(model)
        text = "".join(PIECES) + told
        if call == "converse":
            said = {"output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                    "stopReason": "end_turn", "usage": CONVERSE, "metrics": {"latencyMs": 551}}
        else:
            said = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": model,
                    "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": INVOKE}
        whole = json.dumps(said).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(whole))), ("x-told", told)])
        return [whole]

    return answer


address, certificate, key = sys.argv[1:]
keys = json.loads(sys.stdin.readline())
server = make_server(address, 443, application(keys), threaded=True, request_handler=Handler, ssl_context=(certificate, key))
tell(ready=True)
server.serve_forever()
