"""Through a company's proxy, trusting the company's own certificate authority beside the system's.

Run: python3 examples/corporate_network.py --proxy http://user:password@proxy.corp:3128 --ca company-ca.pem
Without AEROSTACK_API_KEY it calls an Aerostack of its own. Often no code is needed: HTTPS_PROXY, NO_PROXY and
SSL_CERT_FILE in the environment do the same.
"""

import argparse
import os
import ssl
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK, HttpClient, errors
from local_platform import LocalPlatform


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", metavar="URL", help="by default HTTPS_PROXY and its kin; its password is not shown")
    parser.add_argument("--ca", metavar="FILE", help="the company's CA certificate, PEM")
    options = parser.parse_args()

    context = ssl.create_default_context()  # the system's trust store
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.ca:
        context.load_verify_locations(options.ca)

    # The client is yours, so you close it; one serves the whole program.
    with HttpClient(proxy=options.proxy, ssl_context=context) as client, SDK(client=client) as sdk:
        try:
            print(sdk.database.db_query(sql="SELECT 1 AS one").results)
        except errors.ProxyError as error:
            raise SystemExit("The proxy refused: %s" % error) from None
        except errors.ConnectError as error:  # no proxy there, no server there, or a certificate that is not trusted
            raise SystemExit("No connection: %s" % error) from None


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        main()
