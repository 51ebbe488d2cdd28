"""oauth2_server.py ADDRESS CERTIFICATE KEY: an authorization server and an API behind it, under two names.

Both are Authlib's: the first gives tokens to the client of the first line of standard input, the second takes them
as long as they live and nobody revoked them (`/revoke` revokes the one that it is asked with). `/odd/KIND` are token
endpoints that misbehave. Each request is told on standard output."""

import itertools
import json
import sys
import threading
import time

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from common import tell

address, certificate, key = sys.argv[1:]
settings = json.loads(sys.stdin.readline())
numbers = itertools.count(1)
lock = threading.Lock()
tokens = {}


class Client(ClientMixin):
    def get_client_id(self):
        return settings["id"]

    def get_allowed_scope(self, scope):
        return " ".join(word for word in scope.split() if word in settings["scopes"])

    def check_client_secret(self, secret):
        # Which of them it was is told with the token.
        self.proof = settings["secrets"].index(secret) if secret in settings["secrets"] else None
        return self.proof is not None

    def check_endpoint_auth_method(self, method, endpoint):
        return endpoint == "token" and method == settings["method"]

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class Token(TokenMixin):
    def __init__(self, given, proof):
        self.value = given["access_token"]
        self.scope = given.get("scope") or ""
        self.proof = proof
        self.until = time.monotonic() + given.get("expires_in", 3600)
        self.revoked = False

    def get_scope(self):
        return self.scope

    def is_expired(self):
        return time.monotonic() > self.until

    def is_revoked(self):
        return self.revoked


class Grant(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class Validator(BearerTokenValidator):
    def authenticate_token(self, text):
        return tokens.get(text)


def make_token(**_):
    with lock:
        return f"at-{settings['token']}-{next(numbers)}"


app = Flask(__name__)


def generate(grant_type, client, user=None, scope=None, expires_in=None, include_refresh_token=True):
    given = {"token_type": "Bearer", "access_token": make_token(), "scope": scope}
    return given | ({"expires_in": settings["life"]} if settings["life"] else {})


def save(given, asked):
    tokens[given["access_token"]] = Token(given, asked.client.proof)


server = AuthorizationServer(app, lambda name: Client() if name == settings["id"] else None, save)
server.register_token_generator("client_credentials", generate)
server.register_grant(Grant)
protector = ResourceProtector()
protector.register_token_validator(Validator())


@app.post("/token")
def token():
    # Others have time to ask as well.
    time.sleep(settings["pause"])
    return server.create_token_response()


@app.route("/api", methods=["GET", "POST"])
@protector(settings["scopes"])
def api():
    # It tells what it was given, as it never should.
    told = request.headers["Authorization"]
    codings = request.headers["Accept-Encoding"]
    return jsonify(told=told, proof=current_token.proof, codings=codings), {"X-Told": told}


@app.post("/revoke")
@protector()
def revoke():
    current_token.revoked = True
    return jsonify(revoked=True)


def endless():
    yield b'{"access_token": "'
    while True:
        yield b"x" * 65536


def slow():
    time.sleep(60)
    yield b"{}"


def odd(**more):
    return jsonify({"access_token": f"at-{settings['token']}-odd", "token_type": "Bearer", "expires_in": 60} | more)


ODD = {
    "slow": lambda: Response(slow(), content_type="application/json"),
    "huge": lambda: Response(endless(), content_type="application/json"),
    "redirect": lambda: Response(status=307, headers={"Location": "https://login.oauth.test/token"}),
    "html": lambda: Response("<html>welcome</html>"),
    "injected": lambda: odd(access_token="at\r\nX-Evil: 1"),
    "long": lambda: odd(access_token="x" * 20000),
    "mac": lambda: odd(token_type="mac"),
    "dead": lambda: odd(expires_in=0),
    # The secret comes back in every field that might be shown to somebody.
    "telling": lambda: (
        jsonify(error=settings["secrets"][0], error_description=settings["secrets"][0]),
        400,
    ),
    "down": lambda: Response(status=503),
}


@app.post("/odd/<kind>")
def misbehave(kind):
    return ODD[kind]()


@app.after_request
def note(response):
    tell(
        path=request.path,
        status=response.status_code,
        form=sorted(request.form),
        asked={name: request.form[name] for name in ("scope", "audience", "resource") if name in request.form},
        dummy="DUMMY" in str(request.headers) + request.query_string.decode(),
        evil="X-Evil" in request.headers,
    )
    return response


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


serving = make_server(address, 443, app, threaded=True, request_handler=Handler, ssl_context=(certificate, key))
tell(ready=True)
serving.serve_forever()
