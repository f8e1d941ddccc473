"""The models and the small public things, by hand: built, compared, shown, written and read."""

import copy
import datetime as dt
import enum
import importlib
import json
import os
import pickle
import subprocess
import sys
import unittest

from tests.parity import OFFICIAL
from tests.parity.beside import Parity

UTC = dt.timezone.utc
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# One full set of fields for every model, under the names of attributes.
FULL = {
    "Messages": {"content": "hi", "role": "user"},
    "AiChatRequestBody": {"messages": [{"role": "user"}], "model": "m"},
    "AiChatResponseBody": {"response": "r"},
    "AuthResponse": {"token": "t", "user": {"id": "u", "name": None}},
    "AuthSigninRequestBody": {"email": "e", "password": "p"},
    "AuthSignupRequestBody": {"email": "e", "password": "p", "metadata": {"a": [1]}, "name": "n"},
    "CacheGetRequestBody": {"key": "k"},
    "CacheGetResponseBody": {"exists": True, "value": [1, None]},
    "CacheSetRequestBody": {"key": "k", "value": {"a": None}, "ttl": 5},
    "CacheSetResponseBody": {"success": True},
    "DbQueryRequestBody": {"sql": "s", "params": [1, "x"]},
    "DbQueryResult": {"count": 1, "results": [{"a": 1}]},
    "File": {"content": b"x", "file_name": "a.txt", "content_type": "text/plain"},
    "QueueEnqueueRequestBody": {"data": {"a": 1}, "type": "t", "delay": 3},
    "QueueEnqueueResponseBody": {"job_id": "j", "success": True},
    "Security": {"api_key_auth": "a-key"},
    "ServicesInvokeRequestBody": {"data": {"a": 1}, "service_name": "s"},
    "ServicesInvokeResponseBody": {"result": {"a": 1}, "success": False},
    "StorageUploadRequestBody": {"file": {"file_name": "a", "content": b"x"}, "key": "k", "content_type": "a/b"},
    "StorageUploadResponseBody": {"url": "u"},
    "User": {
        "created_at": dt.datetime(2024, 1, 2, tzinfo=UTC),
        "email": "e",
        "id": "i",
        "metadata": {"a": 1},
        "name": "n",
    },
}
# Prints how many modules of site-packages come with an import.
FOREIGN_MODULES = """
import sys
had = set(sys.modules)
import %s
new = [sys.modules[name] for name in set(sys.modules) - had]
print(sum("site-packages" in (getattr(module, "__file__", None) or "") for module in new))
"""

SECRET = {"AuthSigninRequestBody", "AuthSignupRequestBody", "AuthResponse", "Security"}


def aliased(name, fields):
    """The same fields under their wire names."""
    models = getattr(OFFICIAL.models, name).model_fields
    return {models[field].alias or field: value for field, value in fields.items()}


def required(name):
    return [field for field, info in getattr(OFFICIAL.models, name).model_fields.items() if info.is_required()]


class EveryModel(Parity):
    def each(self, name, function, but=()):
        for model, fields in FULL.items():
            if model not in but:
                self.same_value(
                    "%s of %s" % (name, model), lambda package: function(getattr(package.models, model), model, fields)
                )

    def test_the_list_is_whole(self):
        self.assertEqual(
            set(FULL), {name for name in OFFICIAL.models.__all__ if not name.endswith("TypedDict")} - {"Role"}
        )

    def test_is_built_from_attribute_names(self):
        self.each("names", lambda model, name, fields: model(**fields))

    def test_is_built_from_wire_names(self):
        self.each("aliases", lambda model, name, fields: model(**aliased(name, fields)), but={"File"})

    def test_is_built_from_what_is_required(self):
        self.each("required", lambda model, name, fields: model(**{field: fields[field] for field in required(name)}))

    def test_names_what_is_missing(self):
        self.each("nothing", lambda model, name, fields: model(), but={"File"})

    def test_takes_no_positional_arguments(self):
        self.each("positional", lambda model, name, fields: model("x"))

    def test_refuses_wrong_types(self):
        for wrong in (object(), 5, [[]]):
            self.each(
                "wrong %s" % type(wrong).__name__,
                lambda model, name, fields: [
                    self.official.act(lambda: model(**dict(fields, **{field: wrong}))).error is None
                    for field in fields
                    if not (name in ("File", "Messages") and field == "content")
                ],
            )

    def test_is_equal_to_its_like_and_to_nothing_else(self):
        def questions(model, name, fields):
            one, two = model(**fields), model(**fields)
            changed = copy.copy(two)
            setattr(changed, next(iter(fields)), None)
            return [one == two, one != two, one == fields, one == changed, one == object(), one is two]

        self.each("equality", questions)

    def test_has_no_hash(self):
        self.each("hash", lambda model, name, fields: hash(model(**fields)))

    def test_shows_itself(self):
        self.each(
            "repr",
            lambda model, name, fields: repr(model(**fields)),
            but=SECRET | {"AiChatRequestBody", "User"},
        )

    def test_copies_and_pickles(self):
        for way, twin in (
            ("copy", copy.copy),
            ("deepcopy", copy.deepcopy),
            ("pickle", lambda model: pickle.loads(pickle.dumps(model))),
        ):
            self.each(
                way, lambda model, name, fields: [twin(model(**fields)), twin(model(**fields)) == model(**fields)]
            )

    def test_writes_itself_under_wire_names(self):
        self.each(
            "dump",
            lambda model, name, fields: model(**fields).model_dump(by_alias=True),
            but={"File", "StorageUploadRequestBody"},
        )
        self.each(
            "dump as JSON",
            lambda model, name, fields: model(**fields).model_dump(by_alias=True, mode="json"),
            but={"File", "StorageUploadRequestBody"},
        )
        self.each(
            "JSON text",
            lambda model, name, fields: json.loads(model(**fields).model_dump_json(by_alias=True)),
            but={"File", "StorageUploadRequestBody"},
        )
        self.each(
            "required only",
            lambda model, name, fields: model(**{field: fields[field] for field in required(name)}).model_dump(
                by_alias=True
            ),
            but={"File", "StorageUploadRequestBody"},
        )

    def test_reads_itself(self):
        self.each("validate", lambda model, name, fields: model.model_validate(fields))
        self.each("validate itself", lambda model, name, fields: model.model_validate(model(**fields)))
        self.each(
            "validate JSON",
            lambda model, name, fields: model.model_validate_json(json.dumps(aliased(name, fields), default=str)),
            but={"File", "StorageUploadRequestBody"},
        )
        self.each(
            "validate bytes",
            lambda model, name, fields: model.model_validate_json(b"{}"),
            but={"File", "StorageUploadRequestBody"},
        )
        self.each(
            "validate nonsense",
            lambda model, name, fields: [
                self.official.act(lambda: model.model_validate(wrong)).error is None for wrong in ("x", 5, None, [])
            ],
        )

    def test_is_not_checked_when_changed(self):
        def change(model, name, fields):
            made = model(**fields)
            for field in fields:
                setattr(made, field, 5)
            return made

        self.each("assignment", change)

    def test_has_no_other_attributes(self):
        self.each("assignment of another", lambda model, name, fields: setattr(model(**fields), "other", 1))
        self.each("reading another", lambda model, name, fields: hasattr(model(**fields), "other"))

    def test_its_typed_dict_makes_dicts(self):
        for name, fields in FULL.items():
            self.same_value(name + "TypedDict", lambda package: getattr(package.models, name + "TypedDict")(**fields))


class Coercion(Parity):
    def test_in_constructors(self):
        for name, build in (
            ("ttl text", lambda models: models.CacheSetRequestBody(key="k", value=1, ttl="5")),
            ("ttl float", lambda models: models.CacheSetRequestBody(key="k", value=1, ttl=5.0)),
            ("ttl bad", lambda models: models.CacheSetRequestBody(key="k", value=1, ttl="x")),
            ("bytes", lambda models: models.CacheGetRequestBody(key=b"k")),
            ("bytes in a response", lambda models: models.AiChatResponseBody(response=b"hi")),
            ("tuple", lambda models: models.DbQueryRequestBody(sql="s", params=(1, 2))),
            ("text for bool", lambda models: models.CacheSetResponseBody(success="true")),
            ("text for a moment", lambda models: models.User(created_at="2024-01-02T03:04:05Z")),
            ("number for a moment", lambda models: models.User(created_at=1704164645)),
            ("date for a moment", lambda models: models.User(created_at=dt.date(2024, 1, 2))),
            ("dict for a model", lambda models: models.AuthResponse(user={"id": "u", "createdAt": 0})),
            ("model for a model", lambda models: models.AuthResponse(user=models.User(id="u"))),
            ("wrong model", lambda models: models.AuthResponse(user=models.Messages())),
            ("role text", lambda models: models.Messages(role="system").role is models.Role.SYSTEM),
            ("rows", lambda models: models.DbQueryResult(results=[{"a": 1}, {"b": [1, {"c": None}]}])),
            ("both names", lambda models: models.QueueEnqueueResponseBody(job_id="own", jobId="wire")),
            ("None", lambda models: models.AiChatResponseBody(response=None)),
            ("nested error", lambda models: models.AiChatRequestBody(messages=[{}, {"content": 5}])),
        ):
            self.same_value(name, lambda package: build(package.models))

    def test_a_list_is_a_new_list(self):
        def inside(package):
            params = [1]
            request = package.models.DbQueryRequestBody(sql="s", params=params)
            params.append(2)
            return request.params

        self.same_value("own list", inside)


class UnsetMissingAndNone(Parity):
    def test_three_different_things(self):
        self.same_value(
            "equality",
            lambda package: [
                package.UNSET == package.types.UNSET,
                package.UNSET == None,  # noqa: E711
                bool(package.UNSET),
                copy.deepcopy(package.UNSET) == package.UNSET,
                package.models.CacheGetResponseBody(value=None) == package.models.CacheGetResponseBody(),
                package.models.CacheGetResponseBody().value == package.UNSET,
                package.types.UNSET_SENTINEL,
                repr(package.UNSET),
            ],
        )
        self.same_value(
            "repr",
            lambda package: [
                repr(package.models.CacheGetResponseBody()),
                repr(package.models.CacheGetResponseBody(value=None)),
            ],
        )
        self.same_value(
            "dump",
            lambda package: [
                package.models.CacheGetResponseBody().model_dump(),
                package.models.CacheGetResponseBody(value=None).model_dump(),
                package.models.CacheGetResponseBody(exists=None).model_dump(),
                package.models.User(name=None).model_dump(by_alias=True),
                package.models.User().model_dump(by_alias=True),
            ],
        )
        self.same_value("given", lambda package: package.models.CacheGetResponseBody(value=package.UNSET))


class Names(Parity):
    def test_every_public_name_of_the_official_package(self):
        def kind(value):
            if isinstance(value, type):
                return "class"
            return "function" if callable(value) else type(value).__name__

        for module in ("models", "errors", "types"):
            for name in getattr(OFFICIAL, module).__all__:
                if name in ("Nullable", "OptionalNullable", "UNSET", "UNSET_SENTINEL"):
                    self.same_value(module + "." + name, lambda package: hasattr(getattr(package, module), name))
                else:
                    self.same_value(module + "." + name, lambda package: kind(getattr(getattr(package, module), name)))
        for name in ("BackoffStrategy", "RetryConfig", "Logger", "get_default_logger", "parse_datetime"):
            self.same_value("utils." + name, lambda package: kind(getattr(package.utils, name)))
        for name in (
            "SDK",
            "SDKConfiguration",
            "SERVERS",
            "VERSION",
            "USER_AGENT",
            "OPENAPI_DOC_VERSION",
            "SPEAKEASY_GENERATOR_VERSION",
            "HttpClient",
            "AsyncHttpClient",
            "RetryConfig",
            "Logger",
            "UNSET",
            "OptionalNullable",
            "models",
            "errors",
            "utils",
            "types",
            "httpclient",
            "__version__",
        ):
            self.same_value(name, lambda package: hasattr(package, name))
        for name in ("HttpClient", "AsyncHttpClient"):
            self.same_value("httpclient." + name, lambda package: kind(getattr(package.httpclient, name)))

    def test_a_name_that_does_not_exist(self):
        for module in ("models", "errors", "utils"):
            self.same_value(module, lambda package: hasattr(getattr(package, module), "Nonsense"))
        self.same_value("SDK", lambda package: package.SDK("key").nonsense)
        self.same_value("service", lambda package: hasattr(package.SDK("key").cache, "nonsense"))

    def test_the_services(self):
        for name in ("ai", "authentication", "cache", "database", "queue", "services", "storage"):
            self.same_value(name, lambda package: self.service(package, name))

    @staticmethod
    def service(package, name):
        sdk = package.SDK("key")
        service = getattr(sdk, name)
        return [
            service is getattr(sdk, name),
            type(service).__name__,
            name in dir(sdk),
            sorted(method for method in dir(service) if method.startswith(name[:2]) and not method.startswith("_")),
        ]

    def test_the_enums(self):
        self.same_value(
            "Role",
            lambda package: [
                (role.name, role.value, role == role.value, isinstance(role, str)) for role in package.models.Role
            ],
        )
        self.same_value(
            "json", lambda package: json.dumps([package.models.Role.USER, package.errors.Code.INTERNAL_ERROR])
        )
        self.same_value("Enum", lambda package: issubclass(package.models.Role, enum.Enum))
        self.same_value("not a role", lambda package: package.models.Role("tool"))

    def test_parse_datetime(self):
        for text in ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+05:30", "2024-01-02T03:04:05.678901", "nonsense"):
            self.same_value(text, lambda package: package.utils.parse_datetime(text))

    def test_the_default_logger(self):
        self.same_value("logger", lambda package: package.utils.get_default_logger().debug("%s", 1))

    def test_the_constructor(self):
        self.same_value(
            "positional", lambda package: package.SDK("key", 1, "http://x/v1").sdk_configuration.get_server_details()
        )
        self.same_value("unknown", lambda package: package.SDK("key", nonsense=1))
        self.same_value(
            "settings",
            lambda package: [
                getattr(package.SDK("key", server_url="http://x", timeout_ms=5).sdk_configuration, name)
                for name in ("server_url", "timeout_ms", "language")
            ],
        )
        self.same_value(
            "retries",
            lambda package: (
                package.SDK(
                    "key",
                    retry_config=package.utils.RetryConfig("backoff", package.utils.BackoffStrategy(1, 2, 3, 4), True),
                ).sdk_configuration.retry_config.backoff.exponent
            ),
        )


class OnPurpose(Parity):
    def test_a_dump_keeps_every_field(self):
        for name in ("QueueEnqueueResponseBody", "User"):
            fields = FULL[name]
            self.differs(
                "`model_dump()`",
                name,
                lambda side: getattr(side.package.models, name)(**fields).model_dump(),
                lambda exchange: set(exchange.value) < set(fields),
                lambda exchange: exchange.value == fields,
            )

    def test_a_request_refuses_fields_that_it_does_not_have(self):
        for name in FULL:
            if "Request" in name or name == "File":
                self.differs(
                    "unknown request fields",
                    "of the model " + name,
                    lambda side: getattr(side.package.models, name)(**dict(FULL[name], tttl=1)),
                    lambda exchange: exchange.error is None and not hasattr(exchange.value, "tttl"),
                    lambda exchange: exchange.refused("tttl"),
                )

    def test_a_response_keeps_fields_that_it_does_not_know(self):
        self.differs(
            "unknown fields",
            "of a response model",
            lambda side: side.package.models.CacheSetResponseBody.model_validate({"success": True, "more": [1]}),
            lambda exchange: not exchange.value.model_extra and not hasattr(exchange.value, "more"),
            lambda exchange: (
                exchange.value.model_extra == {"more": [1]}
                and repr(exchange.value) == "CacheSetResponseBody(success=True)"
            ),
        )

    def test_a_repr_keeps_secrets(self):
        for name, fields in (
            ("AuthSigninRequestBody", {"email": "e", "password": "hunter2"}),
            ("Security", {"api_key_auth": "hunter2"}),
            ("AuthSignupRequestBody", {"email": "e", "password": "hunter2"}),
            ("AuthResponse", {"token": "hunter2"}),
        ):
            self.differs(
                "`repr` of configuration, requests and responses",
                name,
                lambda side: repr(getattr(side.package.models, name)(**fields)),
                lambda exchange: "hunter2" in exchange.value,
                lambda exchange: "hunter2" not in exchange.value and exchange.value.startswith(name + "("),
            )
        self.differs(
            "`repr` of configuration, requests and responses",
            "the configuration",
            lambda side: repr(side.package.SDK("hunter2", server_url="http://u:hunter2@x/v1").sdk_configuration),
            lambda exchange: "hunter2" in exchange.value,
            lambda exchange: "hunter2" not in exchange.value,
        )

    def test_unset_is_one(self):
        self.differs(
            "`is UNSET`",
            "of its copies",
            lambda side: [
                twin(side.package.UNSET) is side.package.UNSET
                for twin in (copy.copy, copy.deepcopy, lambda unset: pickle.loads(pickle.dumps(unset)))
            ],
            lambda exchange: not all(exchange.value),
            lambda exchange: all(exchange.value),
        )

    def test_a_role_is_any_text(self):
        self.differs(
            "`role`",
            "of a model",
            lambda side: side.package.models.Messages(role="tool"),
            lambda exchange: exchange.refused(),
            lambda exchange: exchange.value.role == "tool",
        )

    def test_a_missing_content_is_named(self):
        self.differs(
            "`loc` of a missing `File.content`",
            "of the model",
            lambda side: side.package.models.File(file_name="a"),
            lambda exchange: exchange.error.errors()[0]["loc"] == ("",),
            lambda exchange: exchange.error.errors()[0]["loc"] == ("content",),
        )

    def test_pydantics_own_interface_is_not_ours(self):
        for name in ("model_copy", "model_fields", "model_fields_set", "__iter__"):
            self.differs(
                "`model_copy`, `model_fields`, `model_fields_set`, iteration and pydantic's other methods",
                name,
                lambda side: hasattr(side.package.models.User(), name),
                lambda exchange: exchange.value,
                lambda exchange: not exchange.value,
            )

    def test_the_text_of_a_model_is_its_repr(self):
        self.differs(
            "`str(model)`",
            "CacheSetResponseBody",
            lambda side: str(side.package.models.CacheSetResponseBody(success=True)),
            lambda exchange: exchange.value == "success=True",
            lambda exchange: exchange.value == "CacheSetResponseBody(success=True)",
        )

    def test_a_model_is_no_field_of_pydantics(self):
        import pydantic

        self.differs(
            "our models as fields of pydantic's, in FastAPI for one",
            "User",
            lambda side: (
                pydantic.create_model("Page", user=(side.package.models.User, ...))(
                    user={"createdAt": 0}
                ).user.created_at
            ),
            lambda exchange: exchange.value.year == 1970,
            lambda exchange: exchange.value is None,
        )

    def test_the_import_brings_nothing_along(self):
        def foreign(side):
            program = FOREIGN_MODULES % side.package.__name__
            return int(subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE).stdout)

        self.differs(
            "dependencies",
            "modules that come with the import",
            foreign,
            lambda exchange: exchange.value > 100,
            lambda exchange: exchange.value == 0,
        )

    def test_what_only_the_generator_needs_is_not_here(self):
        for name in ("models.user", "utils.retries", "_hooks"):
            self.differs(
                "import paths below a module, such as `aerostack.models.user`",
                name,
                lambda side: importlib.import_module("%s.%s" % (side.package.__name__, name)),
                lambda exchange: exchange.error is None,
                lambda exchange: exchange.raised("ImportError"),
            )
        for name in ("generate_url", "unmarshal_json"):
            self.differs(
                "the code generator's helpers in `utils`",
                name,
                lambda side: hasattr(side.package.utils, name),
                lambda exchange: exchange.value is True,
                lambda exchange: exchange.value is False,
            )
        self.differs(
            "`SPEAKEASY_GENERATOR_VERSION`",
            "as it stands",
            lambda side: side.package.SPEAKEASY_GENERATOR_VERSION,
            lambda exchange: exchange.value != "",
            lambda exchange: exchange.value == "",
        )

    def test_a_typed_dict_is_for_checkers(self):
        self.differs(
            "TypedDicts",
            "UserTypedDict",
            lambda side: side.package.models.UserTypedDict,
            lambda exchange: "email" in exchange.value.__annotations__,
            lambda exchange: issubclass(exchange.value, dict) and not hasattr(exchange.value, "__total__"),
        )


if __name__ == "__main__":
    unittest.main()
