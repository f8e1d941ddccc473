"""What Python 3.14 is asked in Pyodide (see test_pyodide.py), by a client that answers without a socket."""

import copy
import dataclasses
import datetime
import inspect
import pickle
import pydoc
import unittest
import warnings

import aerostack_lite
from aerostack_lite import SDK, errors, models
from tests.recording_server import EXAMPLES, KEY, FakeClient, answer, decoded


class Imports(unittest.TestCase):
    def test_warnings_were_errors(self):
        with self.assertRaises(DeprecationWarning):
            warnings.warn("as the module's own would be", DeprecationWarning, stacklevel=2)

    def test_official_paths_are_imported(self):
        from aerostack_lite.models import CacheGetRequestBody
        from aerostack_lite.utils import RetryConfig

        self.assertIs(CacheGetRequestBody, models.CacheGetRequestBody)
        self.assertIs(RetryConfig, aerostack_lite.RetryConfig)

    def test_help_can_be_shown(self):
        for thing in (SDK, aerostack_lite.Cache, models.CacheSetRequestBody, errors.ErrorResponse):
            self.assertIn(thing.__name__, pydoc.plain(pydoc.render_doc(thing)))


class Operations(unittest.TestCase):
    def test_every_operation_sends_its_request(self):
        for operation in aerostack_lite.OPERATIONS:
            fields, body = EXAMPLES[operation.name]
            with self.subTest(operation.name):
                client = FakeClient()
                getattr(getattr(SDK(KEY, client=client), operation.service), operation.name)(**fields)
                if body is None:
                    self.assertIn(b"\r\n\r\nbytes\r\n", client.content)
                else:
                    self.assertEqual(client.content, body)

    def test_every_operation_shows_its_fields_first(self):
        for operation in aerostack_lite.OPERATIONS:
            with self.subTest(operation.name):
                shown = list(
                    inspect.signature(getattr(getattr(SDK(KEY), operation.service), operation.name)).parameters
                )
                declared = {field.name for field in dataclasses.fields(operation.request_type)}
                self.assertLessEqual(set(shown[: len(declared)]), declared | {"self"})

    def test_every_request_type_is_a_dataclass_that_can_be_copied_and_pickled(self):
        for operation in aerostack_lite.OPERATIONS:
            model = operation.request_type(**EXAMPLES[operation.name][0])
            with self.subTest(operation.name):
                self.assertTrue(dataclasses.is_dataclass(model))
                self.assertTrue(dataclasses.asdict(model))
                for twin in (dataclasses.replace(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                    self.assertEqual(twin, model)


class Responses(unittest.TestCase):
    def test_any_json_is_decoded(self):
        model = decoded(answer('{"exists":true,"value":{"a":[1,2.5,null,"\\u00e9"]},"ttl":5}'))
        self.assertEqual((model.exists, model.value), (True, {"a": [1, 2.5, None, "é"]}))
        self.assertEqual(model.model_extra, {"ttl": 5})

    def test_times_are_decoded(self):
        model = decoded(answer('{"token":"t","expiresAt":"2030-01-02T03:04:05Z"}'), "auth_signin", "authentication")
        self.assertEqual(model.expires_at, datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc))


class Errors(unittest.TestCase):
    def check(self, kind, response):
        with self.assertRaises(kind) as caught:
            decoded(response, "auth_signin", "authentication")
        error = caught.exception
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            self.assertEqual((type(twin), twin.args, str(twin)), (type(error), error.args, str(error)))
        return error

    def test_of_the_api_hold_its_code(self):
        body = '{"code":"AUTH_INVALID_KEY","message":"who are you"}'
        self.assertEqual(self.check(errors.ErrorResponse, answer(body, 401)).data.code, "AUTH_INVALID_KEY")

    def test_of_a_gateway_hold_its_words(self):
        self.assertIn("Bad gateway", self.check(errors.SDKError, answer("<p>Bad gateway", 502, "text/html")).body)

    def test_of_what_is_no_json_hold_it(self):
        self.assertEqual(self.check(errors.ResponseValidationError, answer("{")).body, "{")

    def test_of_a_misspelled_field_name_it_and_nothing_is_sent(self):
        client = FakeClient()
        with self.assertRaisesRegex((errors.AerostackError, TypeError), "kee"):
            SDK(KEY, client=client).cache.cache_get(kee="k")
        self.assertEqual(client.sent, [])
