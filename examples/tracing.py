"""Every attempt of every call as an OpenTelemetry span, and its `traceparent` header on the way to the server.

Run: pip install opentelemetry-sdk opentelemetry-instrumentation-urllib && python3 examples/tracing.py
Without AEROSTACK_API_KEY it calls an Aerostack of its own.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK
from local_platform import LocalPlatform

try:
    from opentelemetry.instrumentation.urllib import URLLibInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
except ImportError:
    raise SystemExit("pip install opentelemetry-sdk opentelemetry-instrumentation-urllib") from None


def main() -> None:
    exporter = ConsoleSpanExporter(formatter=lambda span: "%s %s\n" % (span.name, dict(span.attributes or {})))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))  # in production: a BatchSpanProcessor and OTLP
    URLLibInstrumentor().instrument(tracer_provider=provider)  # the SDK sends every request through urllib.request
    with provider.get_tracer(__name__).start_as_current_span("two calls"), SDK() as sdk:
        sdk.cache.cache_set(key="greeting", value="hello")
        print(sdk.cache.cache_get(key="greeting").value)


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        main()
