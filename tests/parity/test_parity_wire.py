"""What goes out: the same request leaves both SDKs, byte for byte where it is JSON."""

import collections
import copy
import types
import unittest

from tests.parity.beside import OPERATIONS, Case, Own, Parity, Side
from tests.parity.recorder import Answer

# Fields of a request whose official attribute and wire names differ.
ALIASES = {"service_name": "serviceName", "serviceName": "service_name", "content_type": "contentType"}


def model_of(operation, request):
    return Own(lambda package: getattr(package.models, OPERATIONS[operation][2])(**request))


def renamed(request):
    return {ALIASES.get(name, name): value for name, value in request.items()}


class TheNineOperations(Parity):
    def each(self, name, change):
        """One case per operation and per size of request."""
        for operation, (smallest, fullest, _, _, _) in OPERATIONS.items():
            for size, request in (("smallest", smallest), ("fullest", fullest)):
                self.same(Case("%s, %s" % (name, size), operation, change(operation, request)))

    def test_a_dict(self):
        self.each("a dict", lambda operation, request: request)

    def test_a_model(self):
        self.each("a model", model_of)

    def test_fields_in_another_order_go_out_in_the_order_of_the_model(self):
        self.each("reversed", lambda operation, request: dict(reversed(list(request.items()))))

    def test_the_other_spelling_of_a_renamed_field(self):
        for operation, (smallest, fullest, _, _, _) in OPERATIONS.items():
            for request in (smallest, fullest):
                if renamed(request) != request:
                    self.same(
                        Case("renamed %s" % sorted(renamed(request)), operation, renamed(request)),
                        Case("renamed model", operation, model_of(operation, renamed(request))),
                    )

    def test_any_mapping(self):
        for operation, (smallest, _, _, _, _) in OPERATIONS.items():
            for mapping in (collections.UserDict, types.MappingProxyType, collections.OrderedDict):
                self.same(
                    Case(mapping.__name__, operation, Own(lambda package, new=mapping, request=smallest: new(request)))
                )

    def test_an_optional_field_that_is_none_is_left_out(self):
        optional = {
            "ai.ai_chat": {"model": None},
            "authentication.auth_signup": {"metadata": None, "name": None},
            "cache.cache_set": {"ttl": None},
            "database.db_query": {"params": None},
            "queue.queue_enqueue": {"delay": None},
            "storage.storage_upload": {"content_type": None},
        }
        for operation, nothing in optional.items():
            request = dict(OPERATIONS[operation][0], **nothing)
            self.same(
                Case("None in a dict", operation, request),
                Case("None in a model", operation, model_of(operation, request)),
            )
        self.same(
            Case("None in a message", "ai.ai_chat", {"messages": [{"role": None, "content": None}]}),
            Case(
                "None in a file",
                "storage.storage_upload",
                {"key": "k", "file": {"file_name": "a.png", "content": b"x", "content_type": None}},
            ),
        )

    def test_an_empty_value_is_sent(self):
        self.same(
            Case("no messages", "ai.ai_chat", {"messages": [], "model": ""}),
            Case("empty content", "ai.ai_chat", {"messages": [{"content": ""}]}),
            Case("empty credentials", "authentication.auth_signin", {"email": "", "password": ""}),
            Case(
                "empty metadata",
                "authentication.auth_signup",
                {"email": "", "password": "", "metadata": {}, "name": ""},
            ),
            Case("empty key", "cache.cache_get", {"key": ""}),
            Case("zero ttl", "cache.cache_set", {"key": "", "value": "", "ttl": 0}),
            Case("no params", "database.db_query", {"sql": "", "params": []}),
            Case("zero delay", "queue.queue_enqueue", {"type": "", "data": {}, "delay": 0}),
            Case("empty service", "services.services_invoke", {"serviceName": "", "data": {}}),
        )

    def test_text_of_every_kind_is_escaped_alike(self):
        for text in ("é", "🚀", "\x00\x1f\x7f", "\u2028\u2029", '"\\/', "</script>", "\r\n\t", "\ufeff", "\uffff"):
            self.same(
                Case(ascii(text), "cache.cache_get", {"key": text}),
                Case(ascii(text), "services.services_invoke", {"service_name": "s", "data": {text: text}}),
            )

    def test_messages_of_a_model_and_of_dicts_mix(self):
        self.same(
            Case(
                "mixed",
                "ai.ai_chat",
                Own(
                    lambda package: {
                        "messages": [
                            package.models.Messages(role=package.models.Role.USER, content="a"),
                            {"role": "assistant"},
                            {"role": package.models.Role.SYSTEM},
                            package.models.Messages(),
                        ]
                    }
                ),
            )
        )

    def test_a_file_model_inside_a_dict(self):
        self.same(
            Case(
                "file model",
                "storage.storage_upload",
                Own(lambda package: {"key": "k", "file": package.models.File(content=b"x", file_name="a.txt")}),
            )
        )

    def test_a_changed_model_goes_out_changed(self):
        def changed(package):
            request = package.models.CacheSetRequestBody(key="k", value=1)
            request.ttl, request.value = 5, [None]
            return request

        self.same(Case("changed", "cache.cache_set", Own(changed)))


class TheCaller(Parity):
    def test_keeps_its_dicts_as_they_were(self):
        for operation, (_, fullest, _, _, _) in OPERATIONS.items():
            request, headers = copy.deepcopy(fullest), {"X-Own": "1"}
            self.same(
                Case("left alone", operation, Own(lambda package: request), http_headers=Own(lambda package: headers))
            )
            self.assertEqual((request, headers), (fullest, {"X-Own": "1"}))

    def test_keeps_one_connection_for_calls_in_a_row(self):
        def calls(package):
            side = Side(package, self.server, self.loop)
            sdk = side.sdk({})
            with sdk:
                for _ in range(5):
                    sdk.cache.cache_get(request={"key": "k"})
            return len({request.connection for request in self.server.requests})

        self.same_value("one connection", calls)


class OnPurpose(Parity):
    def test_an_unknown_field_is_refused(self):
        for operation, (smallest, _, _, _, _) in OPERATIONS.items():
            self.differs(
                "unknown field of " + operation,
                "a misspelt field must not be dropped without a word",
                Case("", operation, dict(smallest, tttl=5)),
                lambda exchange: exchange.error is None and b"tttl" not in exchange.requests[0].body,
                lambda exchange: exchange.refused("tttl"),
            )
        self.differs(
            "unknown field in a message",
            "as for the request itself",
            Case("", "ai.ai_chat", {"messages": [{"contnet": "hi"}]}),
            lambda exchange: exchange.sent == {"messages": [{}]},
            lambda exchange: exchange.refused("contnet", "content"),
        )
        self.differs(
            "unknown field in a file",
            "as for the request itself",
            Case(
                "",
                "storage.storage_upload",
                {"key": "k", "file": {"file_name": "a.x", "content": b"x", "contentType": "a/b", "mode": 1}},
            ),
            lambda exchange: exchange.error is None,
            lambda exchange: exchange.refused("mode"),
        )

    def test_the_request_and_the_retries_may_be_positional(self):
        self.differs(
            "positional",
            "the official README calls it so",
            lambda side: side.sdk({}).cache.cache_get({"key": "k"}, None),
            lambda exchange: exchange.refused("positional"),
            lambda exchange: exchange.error is None and exchange.sent == {"key": "k"},
        )

        def retried(side):
            backoff = side.package.utils.BackoffStrategy(1, 2, 1, 5000)
            return side.sdk({}).cache.cache_get({"key": "k"}, side.package.utils.RetryConfig("backoff", backoff, False))

        self.differs(
            "positional retries",
            "the official README calls it so",
            lambda side: side.act(
                lambda: retried(side), answers=[Answer(503, "busy", "text/plain"), Answer(200, {"exists": True})]
            ),
            lambda exchange: exchange.value.refused("positional"),
            lambda exchange: exchange.value.value.exists and len(exchange.value.requests) == 2,
        )

    def test_the_fields_may_be_keywords(self):
        for operation, (_, fullest, _, _, _) in OPERATIONS.items():
            service, _, method = operation.partition(".")
            self.differs(
                "keywords of " + operation,
                "a one-liner needs no dict",
                lambda side: getattr(getattr(side.sdk({}), service), method)(**fullest),
                lambda exchange: exchange.refused("keyword"),
                lambda exchange: exchange.error is None and len(exchange.requests) == 1,
            )

    def test_every_request_has_an_id(self):
        self.differs(
            "request id",
            "one call can be found again in the server's log",
            Case("", "cache.cache_get", {"key": "k"}),
            lambda exchange: exchange.requests[0].values("x-request-id") == [],
            lambda exchange: len(exchange.requests[0].values("x-request-id")) == 1,
        )

    def test_the_user_agent_is_our_own(self):
        self.differs(
            "user agent",
            "an agent tells which client it is",
            Case("", "cache.cache_get", {"key": "k"}),
            lambda exchange: exchange.requests[0].values("user-agent")[0].startswith("speakeasy-sdk/python"),
            lambda exchange: (
                "aerostack" in exchange.requests[0].values("user-agent")[0]
                and "urllib" not in exchange.requests[0].values("user-agent")[0]
            ),
        )


if __name__ == "__main__":
    unittest.main()
