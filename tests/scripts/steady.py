"""steady.py HOST PATH CLIENTS RATE: asks at a steady rate, on connections that are kept, until the file
`stop` is there. Each request says when it began (clock_gettime(2), CLOCK_MONOTONIC)."""

import http.client
import os
import ssl
import sys
import threading
import time

from common import tell

host, path, clients, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
interval = clients / rate
counts = {}
lock = threading.Lock()


def count(what):
    with lock:
        counts[what] = counts.get(what, 0) + 1


def client(number):
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, timeout=20, context=context)
    due = time.monotonic() + interval * number / clients
    while not os.path.exists("stop"):
        time.sleep(max(0.0, due - time.monotonic()))
        due += interval
        begun = str(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        try:
            headers = {"X-Begun": begun, "X-Client": str(number)}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            count(str(answer.status))
        except (OSError, http.client.HTTPException) as error:
            count(repr(error))
            connection.close()


started = time.monotonic()
threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
tell(counts=counts, seconds=time.monotonic() - started)
