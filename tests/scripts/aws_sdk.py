"""aws_sdk.py REGION BUCKET: boto3 as an agent would use it, with keys that are worth nothing."""

import http.client
import io
import json
import ssl
import sys

import boto3
from botocore.config import Config
from boto3.s3.transfer import TransferConfig

from common import tell

region, bucket = sys.argv[1:]
HOST = f"{bucket}.s3.{region}.amazonaws.com"
session = boto3.Session("DUMMYID", "DUMMYSECRET", "DUMMYTOKEN", region_name=region)


def client(service, **options):
    config = Config(retries={"total_max_attempts": 1}, **options)
    return session.client(service, config=config)


def objects():
    s3 = client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    key = "folder/a b+c (1)~é.txt"
    s3.put_object(Bucket=bucket, Key=key, Body=b"hello", Metadata={"agent": "a"})
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == b"hello" and got["Metadata"] == {"agent": "a"}, got
    part = 5 * 1024 * 1024
    large = bytes(range(256)) * (part * 2 // 256) + b"end"
    split = TransferConfig(multipart_threshold=part, multipart_chunksize=part)
    s3.upload_fileobj(io.BytesIO(large), bucket, "large", Config=split)
    got = s3.get_object(Bucket=bucket, Key="large")
    assert got["Body"].read() == large and got["ETag"].endswith('-3"'), got["ETag"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="folder/")
    assert [found["Key"] for found in listed["Contents"]] == [key], listed
    signed = client("s3", s3={"payload_signing_enabled": True}, request_checksum_calculation="when_required")
    signed.put_object(Bucket=bucket, Key="signed", Body=b"signed")
    path = client("s3", s3={"addressing_style": "path"})
    assert path.get_object(Bucket=bucket, Key="signed")["Body"].read() == b"signed"
    # A URL that the agent signed itself is signed anew.
    for version in ["s3", "s3v4"]:
        signer = client("s3", signature_version=version)
        url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "signed"})
        target = "/signed?" + url.split("?", 1)[1]
        assert "ignature=" in target, url
        assert ask(HOST, "GET", target, None, {}) == (200, b"signed"), url


def ask(host, method, target, body, headers):
    connection = http.client.HTTPSConnection(host, timeout=20, context=ssl.create_default_context())
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def chunks():
    """As other SDKs upload: each chunk signed, with the agent's keys."""
    dummy = "d0" * 32
    for name, trailer in [("PAYLOAD", None), ("PAYLOAD-TRAILER", b"x-amz-checksum-crc32:DUoRhQ==\r\n")]:
        body = b""
        for piece in [b"hello", b" world", b""]:
            body += b"%x;chunk-signature=%s\r\n%s" % (len(piece), dummy.encode(), piece + b"\r\n" if piece else b"")
        if trailer:
            body += trailer + b"x-amz-trailer-signature:" + dummy.encode() + b"\r\n"
        headers = {
            "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-" + name,
            "X-Amz-Decoded-Content-Length": "11",
            "Content-Encoding": "aws-chunked",
            "Authorization": "AWS4-HMAC-SHA256 Credential=DUMMY, SignedHeaders=host, Signature=" + dummy,
        }
        if trailer:
            headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        status, answer = ask(HOST, "PUT", "/chunked", body + b"\r\n", headers)
        assert status == 200, (name, status, answer)
        assert ask(HOST, "GET", "/chunked", None, {}) == (200, b"hello world")


def others():
    identity = client("sts").get_caller_identity()
    assert identity["Account"], identity
    table = client("dynamodb")
    table.create_table(
        TableName="t",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    item = {"k": {"S": "é"}, "n": {"N": "7"}}
    table.put_item(TableName="t", Item=item)
    assert table.get_item(TableName="t", Key={"k": {"S": "é"}})["Item"] == item
    model = "anthropic.claude-3:0"
    invoked = client("bedrock-runtime").invoke_model(modelId=model, body='{"prompt": "hi"}')
    told = json.loads(invoked["body"].read())
    assert told["said"] == {"prompt": "hi"} and "claude-3" in told["target"], told


objects()
chunks()
others()
tell(done=True)
