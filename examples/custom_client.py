"""Three values for `client=`: headers on every call, a fake for your own unit tests, and httpx where you have it.

Run: python3 examples/custom_client.py
Without AEROSTACK_API_KEY it calls an Aerostack of its own.
"""

import importlib.util
import os
import sys
from typing import Any, Dict, List

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK, HttpClient, Response
from local_platform import LocalPlatform


class Fake:
    """Gives every call the same answer, and remembers what was sent. It needs no network."""

    def __init__(self, answer: bytes, status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.sent: List[Dict[str, Any]] = []

    def build_request(self, method: str, url: str, **request: Any) -> Any:
        return dict(request, url=url)

    def send(self, request: Any, **_: Any) -> Response:
        self.sent.append(request)
        return Response(self.status, content=self.answer)

    def close(self) -> None: ...


def main() -> None:
    fake = Fake(b'{"results": [{"n": 3}], "count": 1}')
    rows = SDK("any key", client=fake).database.db_query(sql="SELECT n FROM t").results
    print("fake: ", rows, "for", fake.sent[0]["content"].decode())

    with HttpClient(headers={"X-Team": "billing"}) as client, SDK(client=client) as sdk:
        print("ours: ", sdk.cache.cache_get(key="a").exists, client)

    if importlib.util.find_spec("httpx"):
        import httpx

        with httpx.Client(headers={"X-Team": "billing"}) as other, SDK(client=other) as sdk:
            print("httpx:", sdk.cache.cache_get(key="a").exists)


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        main()
