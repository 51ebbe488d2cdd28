"""google_sdk.py URL COUNT: google-auth as an agent would use it, with a token that is worth nothing, COUNT times at once."""

import sys
from concurrent.futures import ThreadPoolExecutor

from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

from common import tell

url, count = sys.argv[1], int(sys.argv[2])


def ask(_):
    session = AuthorizedSession(Credentials(token="DUMMY"), max_refresh_attempts=0)
    return session.get(url, timeout=30).status_code


with ThreadPoolExecutor(count) as pool:
    tell(statuses=list(pool.map(ask, range(count))))
