"""A batch of scenes in a bucket: a real S3 server that checks signatures, real workers."""

import json
import os
import urllib.request

import boto3
import numpy as np
import pytest
from batches import entries, serial, tree, two_workers
from models import compiled, tiny_model
from moto.server import ThreadedMotoServer

import geounet
from geounet.archive import find_scenes
from geounet.archive.sources import identify
from geounet.buckets import fetch
from geounet.errors import SceneError

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_REGION = "eu-central-1"
_ALL = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}],
}


@pytest.fixture(scope="module")
def server():
    """Its address, and the keys of a user; requests that these did not sign are refused."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    iam = boto3.client("iam", **_told(address, "any", "any"))
    iam.create_user(UserName="reader")
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(_ALL))
    _check_signatures(address, after="0")
    yield address, made["AccessKeyId"], made["SecretAccessKey"]
    _check_signatures(address, after="inf")
    server.stop()


def _told(address, key, secret):
    return {
        "endpoint_url": address, "region_name": _REGION, "aws_access_key_id": key,
        "aws_secret_access_key": secret,
    }  # fmt: skip


def _check_signatures(address, *, after):
    """From which request on the server checks them."""
    plain = {"Content-Type": "text/plain"}
    asked = urllib.request.Request(f"{address}/moto-api/reset-auth", after.encode(), plain)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes that were started without any settings for S3."""
    assert not {"AWS_ACCESS_KEY_ID", "AWS_S3_ENDPOINT"} & os.environ.keys()
    with two_workers() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket's client, with the environment of somebody who may read it."""
    address, key, secret = server
    for name, value in {
        "AWS_S3_ENDPOINT": address.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "GDAL_HTTP_MAX_RETRY": "0",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", **_told(*server))
    client.create_bucket(
        Bucket="archive", CreateBucketConfiguration={"LocationConstraint": _REGION}
    )
    yield client
    for found in client.list_objects_v2(Bucket="archive").get("Contents", ()):
        client.delete_object(Bucket="archive", Key=found["Key"])
    client.delete_bucket(Bucket="archive")


@pytest.fixture
def local(make_water, bucket, tmp_path):
    """Five scenes, here and in the bucket beside what is no scene."""
    (tmp_path / "in").mkdir()
    for i in range(5):
        path, _ = make_water(70 + 9 * i, 80, name=f"in/s{i}.tif")
        bucket.upload_file(str(path), "archive", f"2024/{i % 2}/{path.name}")
    bucket.put_object(Bucket="archive", Key="2024/readme.txt", Body=b"no scene")
    bucket.put_object(Bucket="archive", Key="2023/s9.tif", Body=b"another year")
    return tmp_path / "in"


@pytest.fixture
def batch(cluster, tmp_path):
    model = compiled(tiny_model(tmp_path))

    def run(**options):
        events = []

        def keep(event):
            if event.kind != "stage":
                events.append(event)
            options.get("on_event", lambda event: None)(event)

        told = {
            "output": tmp_path / "out", "scheduler": cluster, "model": str(model),
            "device": "cpu", "polygons": False, "rest": 0.01, **options, "on_event": keep,
        }  # fmt: skip
        return geounet.batch("s3://archive/2024/", **told), events

    return run


def _serial(local, tmp_path):
    return serial(local, tmp_path / "serial", tmp_path / "tiny.safetensors", polygons=False)


def test_a_bucket_is_segmented_by_workers_and_only_what_changed_again(
    batch, local, bucket, tmp_path, make_water
):
    result, _ = batch()
    assert (result.total, result.done, result.exit_code) == (5, 5, 0)
    assert tree(tmp_path / "out") == _serial(local, tmp_path)
    rows = entries(tmp_path / "out")
    for name, entry in rows.items():
        key = f"2024/{int(name[1]) % 2}/{name}.tif"
        assert entry.uri == f"s3://archive/{key}"
        assert entry.identity == f"etag {bucket.head_object(Bucket='archive', Key=key)['ETag']}"
        assert not entry.worker.endswith(f":{os.getpid()}")

    result, events = batch()
    assert (result.unchanged, [e.kind for e in events]) == (5, ["ended"])

    path, _ = make_water(90, 61, name="in/s3.tif")
    bucket.upload_file(str(path), "archive", "2024/1/s3.tif")
    result, events = batch()
    assert [e.uri for e in events if e.kind == "done"] == ["s3://archive/2024/1/s3.tif"]
    assert (result.done, result.unchanged) == (5, 4)
    assert tree(tmp_path / "out") == _serial(local, tmp_path)


def test_objects_that_go_or_change_once_they_were_listed(
    batch, local, bucket, tmp_path, make_water
):
    path, _ = make_water(90, 61, name="in/s3.tif")

    def change(event):
        if event.kind == "begun":  # listed, and none read
            bucket.delete_object(Bucket="archive", Key="2024/0/s4.tif")
            bucket.upload_file(str(path), "archive", "2024/1/s3.tif")

    result, events = batch(on_event=change)
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    assert "again" not in [e.kind for e in events]
    gone = entries(tmp_path / "out")["s4"]
    assert (gone.status, gone.kind, gone.error, gone.attempts) == (
        "failed", "input", "SceneError", 1,
    )  # fmt: skip
    assert "cannot read s3://archive/2024/0/s4.tif: there is nothing there" in gone.message
    (local / "s4.tif").unlink()
    assert tree(tmp_path / "out") == _serial(local, tmp_path)
    _, events = batch()
    assert [e.kind for e in events] == ["ended"]  # s3 is known as what was read


def test_an_item_in_a_bucket(bucket, make_raster):
    """By the settings and the key with which GDAL reads its assets."""
    path = make_raster(np.full((1, 6, 8), 500, np.uint16), scale=1e-4)
    assets = {}
    for name in ("green", "red", "nir"):
        bucket.upload_file(str(path), "archive", f"items/{name}.tif")
        assets[name] = {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff"}
    item = {"type": "Feature", "id": "x", "properties": {}, "links": [], "assets": assets}
    bucket.put_object(Bucket="archive", Key="items/x.json", Body=json.dumps(item))
    for uri in ("s3://archive/items/x.json", "/vsis3/archive/items/x.json"):
        assert geounet.open_scene(uri).reflectance(["nir"]) == pytest.approx(0.05)
    with pytest.raises(SceneError, match=r"cannot read s3://archive/items/y\.json: there is noth"):
        geounet.open_scene("s3://archive/items/y.json")


@pytest.mark.parametrize("key", ["a b/\xfc.json", "a#1?b=c.json", "a%20b.json"])
def test_keys_are_taken_as_they_are(bucket, key):
    bucket.put_object(Bucket="archive", Key=key, Body=b"{}")
    assert fetch(f"s3://archive/{key}") == b"{}"


def test_a_server_that_refuses_is_told_without_secrets(bucket, monkeypatch, tmp_path, server):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    with pytest.raises(SceneError, match="cannot read s3://archive/2024/: the server refuses") as e:
        list(find_scenes(["s3://archive/2024/"], output=tmp_path))
    assert e.value.__context__ is None
    assert "secret" not in str(e.value)
    assert identify("s3://archive/2024/0/s4.tif") is None


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    with pytest.raises(SceneError, match="cannot read s3://none/x/: there is nothing there"):
        list(find_scenes(["s3://none/x/"], output=tmp_path))


def test_workers_without_the_credentials_are_refused(batch, local, bucket, monkeypatch, tmp_path):
    """The same batch, whose workers get another secret: the server does look."""
    monkeypatch.setattr(
        "geounet.archive.cluster.carried",
        lambda: {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"},
    )
    result, _ = batch()
    assert (result.done, result.failed, result.exit_code) == (0, 5, 1)
    entry = entries(tmp_path / "out")["s0"]
    assert (entry.kind, entry.attempts) == ("input", 1)
    assert "the server refuses access" in entry.message
