"""burst.py HOST METHOD LENGTH BODY...: sends each body in a request of its own, all at once; a body of nothing is none. LENGTH
is what each is filled up to. Says what each was answered with."""

import http.client
import json
import ssl
import sys
import threading

from common import tell

host, method, length, *bodies = sys.argv[1:]
together = threading.Barrier(len(bodies))


def ask(body):
    connection = http.client.HTTPSConnection(host, timeout=30, context=ssl.create_default_context())
    connection.connect()
    together.wait()
    connection.request(method, "/", body=body.ljust(int(length), ".") or None)
    answer = connection.getresponse()
    text = answer.read().decode()
    answered = json.loads(text) if text.startswith("{") else {}
    tell(body=body, status=answer.status, connection=answered.get("connection"), reason=answered.get("reason"))


threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
