"""A real S3 implementation (moto's server) as a process of its own, and how tests write into it. No test here.

It checks signatures as S3 does: a request with a wrong one, or none where one is needed, gets 403.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Self

BUCKET = "raw"
_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Server:
    """Runs until `stop`; a context manager. `client` is boto's, with a user's own keys."""

    def __init__(self, port: int = 0) -> None:
        environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3", "MOTO_S3_DEFAULT_MAX_KEYS": "1000"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVE, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.access_key_id, self.secret_access_key = self._user()
        self.client: Any = self._boto("s3", self.access_key_id, self.secret_access_key)
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _user(self) -> tuple[str, str]:
        """The three calls that need no signature make a user with every right."""
        iam = self._boto("iam", "nobody", "nothing")
        iam.create_user(UserName="reader")
        everything = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=everything)
        keys = iam.create_access_key(UserName="reader")["AccessKey"]
        return keys["AccessKeyId"], keys["SecretAccessKey"]

    def _boto(self, service: str, key: str, secret: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
        )
