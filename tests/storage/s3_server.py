"""A real S3 implementation, moto's server, as a process of its own, told on its stdin what to hold. No test here.

It checks signatures as S3 does: a request signed with a wrong key gets 403. Of URLs that are signed moto checks none,
so botocore does here. What moto lacks beside: stores that are slow, that answer 503, or that forget a condition.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from streams.core.store_names import Store

BUCKET = "raw"
_SERVE = """
import base64, boto3, json, sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.core.authorization import ActionAuthenticatorMixin
from moto.s3.exceptions import S3AccessDeniedError, S3SignatureDoesNotMatchError

by_header = ActionAuthenticatorMixin._authenticate_and_authorize_s3_action

def by_url_or_header(self, *args, **kwargs):
    whole, _, signature = self.uri.partition("&X-Amz-Signature=")
    if not signature:
        return by_header(self, *args, **kwargs)
    given = {name: values[0] for name, values in parse_qs(urlsplit(whole).query).items()}
    headers = {name: self.headers[name] for name in given["X-Amz-SignedHeaders"].split(";")}
    key, _, region, _, _ = given["X-Amz-Credential"].split("/")
    began = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    if datetime.now(timezone.utc) > began + timedelta(seconds=int(given["X-Amz-Expires"])):
        raise S3AccessDeniedError
    request = AWSRequest("GET", url + whole[whole.index("/", 8):], headers=headers)
    request.context["timestamp"] = given["X-Amz-Date"]
    auth = S3SigV4QueryAuth(Credentials(key, dict(users).get(key, "")), "s3", region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    if auth.signature(text, request) != signature:
        raise S3SignatureDoesNotMatchError

ActionAuthenticatorMixin._authenticate_and_authorize_s3_action = by_url_or_header

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://127.0.0.1:%d" % server.get_host_and_port()[1]

def client(service, key, secret):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key,
                        aws_secret_access_key=secret)

def user(name, policy):  # three calls
    iam = client("iam", "nobody", "nothing")
    iam.create_user(UserName=name)
    if policy:
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    return keys["AccessKeyId"], keys["SecretAccessKey"]

allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
users = user("reader", allow), user("stranger", None)
client("s3", *users[0]).create_bucket(Bucket=sys.argv[1])
print(json.dumps({"url": url, "users": users}), flush=True)
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
for line in sys.stdin:
    told = json.loads(line)
    for key, content in told.get("put", {}).items():
        backend.put_object(sys.argv[1], key, base64.b64decode(content))
    for key in told.get("delete", []):
        backend.delete_object(sys.argv[1], key)
    if told.get("listening") is False:
        server.stop()
        server._server.server_close()
    if told.get("listening"):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(url.rpartition(":")[2]), verbose=False)
        server.start()
    print("done", flush=True)
"""


class Server:
    """Runs until `stop`; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVE, BUCKET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "5"},
        )
        started = json.loads(self._answer())
        self.url: str = started["url"]
        self._users: list[tuple[str, str]] = started["users"]

    def store(self, name: str = "cern", *, user: int = 0, prefix: str = "", bucket: str = BUCKET) -> Store:
        """As user 0, who may do everything, or user 1, who may do nothing."""
        key, secret = self._users[user]
        return Store(name, self.url, bucket, prefix, access_key_id=key, secret_access_key=secret)

    def put(self, contents: Mapping[str, bytes]) -> None:
        self._tell({"put": {key: base64.b64encode(content).decode() for key, content in contents.items()}})

    def delete(self, *keys: str) -> None:
        self._tell({"delete": keys})

    def go_away(self) -> None:
        """No connection is taken until `come_back`; what it holds stays."""
        self._tell({"listening": False})

    def come_back(self) -> None:
        self._tell({"listening": True})

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done\n"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the S3 server ended; it needs moto[s3], flask and flask-cors"
        return line
