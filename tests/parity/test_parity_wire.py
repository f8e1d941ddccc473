"""What goes out: the same request leaves both SDKs, byte for byte where it is JSON."""

import collections
import copy
import types
import unittest
import uuid

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
                "unknown request fields",
                "of " + operation,
                Case("", operation, dict(smallest, tttl=5)),
                lambda exchange: exchange.error is None and b"tttl" not in exchange.requests[0].body,
                lambda exchange: exchange.refused("tttl"),
            )
        self.differs(
            "unknown request fields",
            "of a file",
            Case(
                "",
                "storage.storage_upload",
                {"key": "k", "file": {"file_name": "a.x", "content": b"x", "contentType": "a/b", "mode": 1}},
            ),
            lambda exchange: exchange.error is None,
            lambda exchange: exchange.refused("mode"),
        )
        self.differs(
            "unknown request fields",
            "one letter off",
            Case("", "cache.cache_set", {"key": "k", "value": 1, "tll": 5}),
            lambda exchange: exchange.sent == {"key": "k", "value": 1},
            lambda exchange: exchange.refused("tll", "ttl"),
        )

    def test_a_chat_message_is_open(self):
        known = {"content": "hi", "role": "user"}
        for more in (
            {"name": "ada"},
            {"tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"tool_call_id": "t1", "refusal": None},
        ):
            for name, build in (
                ("a dict", lambda package: dict(known, **more)),
                ("a model", lambda package: package.models.Messages(**dict(known, **more))),
            ):
                self.differs(
                    "unknown members of a chat message, such as `name` and `tool_calls`",
                    "%s of %s" % (sorted(more), name),
                    Case("", "ai.ai_chat", Own(lambda package: {"messages": [build(package)]})),
                    lambda exchange: exchange.sent == {"messages": [known]},
                    lambda exchange: exchange.sent == {"messages": [dict(known, **more)]},
                )

    def test_the_content_of_a_message_may_be_a_list_of_parts(self):
        parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://x/a"}}]
        for content in (parts, []):
            self.differs(
                "`content` of a chat message as a list of parts",
                "%d parts" % len(content),
                Case("", "ai.ai_chat", {"messages": [{"role": "user", "content": content}]}),
                lambda exchange: exchange.refused("content"),
                lambda exchange: exchange.sent == {"messages": [{"role": "user", "content": content}]},
            )

    def test_a_chat_takes_the_settings_that_the_platform_has(self):
        request = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}
        settings = {"temperature": 0.5, "max_tokens": 9, "top_p": 1}
        for name, build in (
            ("a dict", lambda package: dict(request, **settings)),
            ("a model", lambda package: package.models.AiChatRequestBody(**dict(request, **settings))),
        ):
            self.differs(
                "`temperature`, `max_tokens`, `top_p` of `ai_chat`",
                name,
                Case("", "ai.ai_chat", Own(build)),
                lambda exchange: exchange.sent == request,
                lambda exchange: exchange.sent == dict(request, **settings),
            )
        self.differs(
            "`temperature`, `max_tokens`, `top_p` of `ai_chat`",
            "in the model's repr",
            lambda side: repr(side.package.models.AiChatRequestBody(messages=[])),
            lambda exchange: exchange.value == "AiChatRequestBody(messages=[], model=None)",
            lambda exchange: (
                exchange.value
                == "AiChatRequestBody(messages=[], model=None, temperature=None, max_tokens=None, top_p=None)"
            ),
        )

    def test_the_request_and_the_retries_may_be_positional(self):
        self.differs(
            "arguments",
            "positional request",
            lambda side: side.sdk({}).cache.cache_get({"key": "k"}, None),
            lambda exchange: exchange.refused("positional"),
            lambda exchange: exchange.error is None and exchange.sent == {"key": "k"},
        )

        def retried(side):
            backoff = side.package.utils.BackoffStrategy(1, 2, 1, 5000)
            return side.sdk({}).cache.cache_get({"key": "k"}, side.package.utils.RetryConfig("backoff", backoff, False))

        self.differs(
            "arguments",
            "positional retries",
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
                "arguments",
                "keywords of " + operation,
                lambda side: getattr(getattr(side.sdk({}), service), method)(**fullest),
                lambda exchange: exchange.refused("keyword"),
                lambda exchange: exchange.error is None and len(exchange.requests) == 1,
            )

    def test_every_request_has_an_id(self):
        def is_uuid(text):
            return str(uuid.UUID(text)) == text

        self.differs(
            "`X-Request-ID`",
            "of a call",
            Case("", "cache.cache_get", {"key": "k"}),
            lambda exchange: exchange.requests[0].values("x-request-id") == [],
            lambda exchange: [is_uuid(value) for value in exchange.requests[0].values("x-request-id")] == [True],
        )

    def test_the_user_agent_is_our_own(self):
        self.differs(
            "`User-Agent`",
            "of a call",
            Case("", "cache.cache_get", {"key": "k"}),
            lambda exchange: exchange.requests[0].values("user-agent")[0].startswith("speakeasy-sdk/python"),
            lambda exchange: (
                exchange.requests[0].values("user-agent") == ["aerostack-lite/" + exchange.side.package.__version__]
            ),
        )

    def test_only_gzip_is_asked_for(self):
        self.differs(
            "`Accept-Encoding`",
            "of a call",
            Case("", "cache.cache_get", {"key": "k"}),
            lambda exchange: exchange.requests[0].values("accept-encoding")[0].startswith("gzip, deflate"),
            lambda exchange: exchange.requests[0].values("accept-encoding") == ["gzip"],
        )


if __name__ == "__main__":
    unittest.main()
