"""aws_mock.py ADDRESS CERTIFICATE KEY: AWS as far as the suite needs it, moto behind a check that moto does not make.

Every request's Signature Version 4 is calculated again by botocore, and so are those of signed chunks; what
does not match is 403. The keys come on the first line of standard input, as JSON. Each request is told on
standard output."""

import datetime
import hashlib
import hmac
import io
import json
import re
import sys

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from common import tell

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)
# What a signature has to cover at least.
NEEDED = {"host", "x-amz-date"}
EMPTY = hashlib.sha256(b"").hexdigest()


class Wrong(Exception):
    pass


def headers_of(environ):
    names = ((name[5:] if name.startswith("HTTP_") else name, value) for name, value in environ.items() if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH"))
    return {name.replace("_", "-").lower(): value for name, value in names if value}


def check(environ, body, keys):
    headers = headers_of(environ)
    found = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not found:
        raise Wrong("no signature")
    key_id, day, region, service, names, signature = found.groups()
    if key_id != keys["id"] or headers.get("x-amz-security-token") != keys.get("token"):
        raise Wrong(f"signed with other keys: {key_id}")
    names = set(names.split(";"))
    needed = NEEDED | {name for name in headers if name.startswith("x-amz-")}
    if not needed <= names:
        raise Wrong(f"not signed: {needed - names}")
    date = headers["x-amz-date"]
    when = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    if abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) > 900 or not date.startswith(day):
        raise Wrong("not of now")
    target = environ["RAW_URI"]
    if re.search("signature=|credential|awsaccesskeyid", target, re.IGNORECASE):
        raise Wrong("signed twice")
    request = AWSRequest(
        method=environ["REQUEST_METHOD"],
        url=f"https://{headers['host']}{target}",
        headers={name: headers[name] for name in names},
        data=body,
    )
    request.context["timestamp"] = date
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    credentials = Credentials(keys["id"], keys["secret"], keys.get("token"))
    signer = kind(credentials, service, region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    if signer.signature(text, request) != signature:
        raise Wrong(f"another signature for {text!r}, {signer.canonical_request(request)!r}")
    said = headers.get("x-amz-content-sha256", "")
    if service == "s3" and not said:
        raise Wrong("no x-amz-content-sha256")
    if re.fullmatch("[0-9a-f]{64}", said) and hashlib.sha256(body).hexdigest() != said:
        raise Wrong("another body")
    if said.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
        scope = f"{day}/{region}/{service}/aws4_request"
        check_chunks(body, keys["secret"], date, scope, signature, said.endswith("-TRAILER"))
        if len(body) != int(headers["content-length"]):
            raise Wrong("another length")
    return service, region, said


def check_chunks(body, secret, date, scope, last, trailing):
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()

    def expect(algorithm, hashes, signature):
        text = "\n".join([algorithm, date, scope, last, hashes])
        if hmac.new(key, text.encode(), hashlib.sha256).hexdigest() != signature:
            raise Wrong("a chunk has another signature")
        return signature

    size = None
    while size != 0:
        line, body = body.split(b"\r\n", 1)
        size, signature = line.decode().split(";chunk-signature=")
        size = int(size, 16)
        hashes = EMPTY + "\n" + hashlib.sha256(body[:size]).hexdigest()
        last = expect("AWS4-HMAC-SHA256-PAYLOAD", hashes, signature)
        if size:
            body = body[size + 2 :]
    if trailing:
        lines, end = body.decode().rsplit("x-amz-trailer-signature:", 1)
        canonical = "".join(line + "\n" for line in lines.split("\r\n") if line)
        expect("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical.encode()).hexdigest(), end.strip())


def application(keys):
    moto = DomainDispatcherApplication(create_backend_app)

    def answer(environ, start):
        length = environ.get("CONTENT_LENGTH")
        # Without a length it is chunked, and the server undoes that.
        ended = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read() if ended else environ["wsgi.input"].read(int(length or 0))
        host = environ["HTTP_HOST"]
        try:
            service, region, said = check(environ, body, keys)
        except Wrong as wrong:
            tell(host=host, wrong=str(wrong))
            start("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        facts = {"host": host, "method": environ["REQUEST_METHOD"], "service": service, "region": region, "payload": said}
        tell(**facts, dummy="DUMMY" in repr(environ))
        if service == "bedrock":
            text = json.dumps({"target": environ["RAW_URI"], "said": json.loads(body)}).encode()
            start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
            return [text]
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        return moto(environ, start)

    return answer


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


if __name__ == "__main__":
    address, certificate, key = sys.argv[1:]
    keys = json.loads(sys.stdin.readline())
    server = make_server(
        address, 443, application(keys), threaded=True, request_handler=Handler, ssl_context=(certificate, key)
    )
    tell(ready=True)
    server.serve_forever()
