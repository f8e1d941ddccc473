"""Three values for `client=`: headers on every call, a fake for your own unit tests, and httpx where you have it.
Run: PYTHONPATH=. python3 examples/custom_client.py"""

import importlib.util
from typing import Any, Dict, List

from aerostack_lite import SDK, HttpClient, Response
from local_platform import LocalPlatform


class Fake:
    """Gives every call the same answer, and remembers what was sent. It needs no network."""

    def __init__(self, answer: bytes, status: int = 200) -> None:
        self.answer, self.status = answer, status
        self.sent: List[Dict[str, Any]] = []

    def build_request(self, method: str, url: str, **request: Any) -> Any:
        return dict(request, url=url)

    def send(self, request: Any, **_: Any) -> Response:
        self.sent.append(request)
        return Response(self.status, content=self.answer)

    def close(self) -> None: ...


fake = Fake(b'{"results": [{"n": 3}], "count": 1}')
print(
    "fake: ",
    SDK("k", client=fake).database.db_query(sql="SELECT n FROM t").results,
    "for",
    fake.sent[0]["content"].decode(),
)

with LocalPlatform() as platform:
    with HttpClient(headers={"X-Team": "billing"}) as client, SDK(
        "any key", client=client, server_url=platform.url
    ) as sdk:
        print("ours: ", sdk.cache.cache_get(key="a").exists, client)
    if importlib.util.find_spec("httpx"):
        import httpx

        with httpx.Client(headers={"X-Team": "billing"}) as other:
            print("httpx:", SDK("any key", client=other, server_url=platform.url).cache.cache_get(key="a").exists)
