"""http3_client.py HOST ADDRESS [PATH ...]: a client that speaks HTTP/3 where a server says that it does, and takes HOST for
ADDRESS. Without a PATH it takes it for granted. Tells of each request what it got, over which version, and after how long."""

import os
import sys
import time

# It brings another urllib3 under the name of the one that the SDKs use: `cargo xtask setup` keeps it beside them.
sys.path.insert(0, os.path.join(sys.prefix, "http3"))

import niquests

from common import tell

host, address, *paths = sys.argv[1:]
session = niquests.Session(resolver=f"in-memory://default?hosts={host}:{address}")
if not paths:
    session.quic_cache_layer.add_domain(host, 443)
for path in paths or ["/"]:
    begun = time.monotonic()
    try:
        answer = session.get(f"https://{host}{path}", timeout=60)
        outcome = {"status": answer.status_code, "version": answer.http_version}
    except niquests.exceptions.ConnectionError as error:
        outcome = {"error": str(error)}
    tell(ms=round((time.monotonic() - begun) * 1000), **outcome)
