"""crowd.py HOST PATH COUNT BODY: COUNT requests at the same moment, each on its own connection.

Prints the status of each. A connection that does not come about is tried again: on a busy machine that is no
answer. Nothing is sent before all are connected, and nothing is sent twice."""

import http.client
import ssl
import sys
import threading
import time

host, path, count, body = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
context = ssl.create_default_context()
together = threading.Barrier(count)
lock = threading.Lock()


def connected():
    for attempt in range(20):
        try:
            connection = http.client.HTTPSConnection(host, timeout=60, context=context)
            connection.connect()
            return connection
        except OSError:
            time.sleep(0.2)
    sys.exit("no connection")


def ask():
    connection = connected()
    together.wait(120)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    with lock:
        print(status, flush=True)


threads = [threading.Thread(target=ask) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
