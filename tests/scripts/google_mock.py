"""google_mock.py ADDRESS CERTIFICATE KEY: Google's token endpoint and an API behind it, under two names.

The assertion is verified by google-auth with the certificate of the first line of standard input, and the API
takes the latest token alone. Each request is told on standard output."""

import itertools
import json
import sys
import threading
import time
import urllib.parse

from google.auth import jwt
from werkzeug.serving import WSGIRequestHandler, make_server

from common import tell

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def application(settings):
    numbers = itertools.count(1)
    lock = threading.Lock()
    tokens = []

    def give(form):
        if form.get("grant_type") != GRANT or settings.get("broken"):
            return 400, {"error": "invalid_grant", "error_description": "no"}
        time.sleep(0.5)
        claims = jwt.decode(form["assertion"], certs=settings["certificate"], audience=settings["endpoint"])
        if claims["iss"] != settings["email"] or claims["scope"] != settings["scope"]:
            return 400, {"error": "invalid_scope"}
        with lock:
            token = f"ya29.{settings['secret']}-{next(numbers)}"
            tokens.append(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": settings["life"]}

    def serve(environ, start):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        path = environ["PATH_INFO"]
        if path == "/token":
            form = dict(urllib.parse.parse_qsl(body.decode()))
            status, answer = give(form)
        else:
            sent = environ.get("HTTP_AUTHORIZATION", "")
            good = sent.removeprefix("Bearer ") in tokens
            # It tells what it was given, as it never should.
            status, answer = (200 if good else 401), {"good": good, "told": sent}
        tell(path=path, status=status, dummy="DUMMY" in repr(environ))
        text = json.dumps(answer).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        headers += [("X-Told", answer["told"])] if "told" in answer else []
        start(f"{status} X", headers)
        return [text]

    return serve


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


address, certificate, key = sys.argv[1:]
settings = json.loads(sys.stdin.readline())
server = make_server(
    address, 443, application(settings), threaded=True, request_handler=Handler, ssl_context=(certificate, key)
)
tell(ready=True)
server.serve_forever()
