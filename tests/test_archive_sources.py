"""Where scenes come from, what tells one content from another, and how outputs are named."""

import io
import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from pyarrow import parquet

from geounet import buckets
from geounet.archive import sources
from geounet.archive.sources import check_template, find_scenes, identify, target_of
from geounet.errors import ConfigError

S3 = "s3://bucket/archive/b.tif"


@pytest.fixture
def archive(tmp_path):
    """A folder with two scenes, a scene that is a folder, and things that are none."""
    folder = tmp_path / "in"
    for name in [
        "a.tif",
        "x/b.TIFF",
        "p.SAFE/inside.jp2",
        "note.txt",
        ".c.tif",
        ".d/d.tif",
        "l8/LC08_MTL.txt",
        "l8/LC08_B3.TIF",
    ]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def _find(*given, output="/nowhere"):
    return [source.uri for source in find_scenes(map(str, given), output=Path(output))]


def test_a_scene(archive):
    (found,) = find_scenes([archive / "a.tif"], output=Path("/nowhere"))
    assert found.uri == str(archive / "a.tif")
    assert found.identity == identify(found.uri)


def test_relative_paths_become_absolute(archive, monkeypatch):
    monkeypatch.chdir(archive)
    assert _find("x/../a.tif") == [str(archive / "a.tif")]


def test_a_scene_that_is_not_there_is_a_scene_all_the_same():
    """It fails by itself, as one that vanishes later does."""
    (found,) = find_scenes(["/not/there.tif"], output=Path("/nowhere"))
    assert (found.uri, found.identity) == ("/not/there.tif", None)


def test_a_folder(archive):
    wanted = [archive / "a.tif", archive / "l8", archive / "p.SAFE", archive / "x" / "b.TIFF"]
    assert sorted(_find(archive)) == sorted(map(str, wanted))


def test_a_folder_that_is_one_scene(archive):
    assert _find(archive / "p.SAFE") == [str(archive / "p.SAFE")]
    assert _find(archive / "l8") == [str(archive / "l8")]


def test_a_glob(archive):
    assert _find(archive / "**" / "*.tif") == [str(archive / "a.tif")]
    assert _find(archive / "*" / "?.TIFF") == [str(archive / "x" / "b.TIFF")]


def test_a_file_whose_name_looks_like_a_glob(archive):
    path = archive / "a[1].tif"
    path.touch()
    assert _find(path) == [str(path)]


def test_what_lies_in_the_output_folder_is_no_scene(archive):
    out = archive / "out"
    out.mkdir()
    (out / "a_mask.tif").touch()
    (archive / "out2.tif").touch()
    found = _find(archive / "**" / "*.tif", output=out)
    assert sorted(found) == [str(archive / "a.tif"), str(archive / "out2.tif")]


def test_a_text_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"# scenes\na.tif\n\n  {S3}  \n/x/b.tif\n")
    assert _find("list.txt") == [str(tmp_path / "a.tif"), S3, "/x/b.tif"]


@pytest.mark.parametrize(
    ("name", "text"), [("list.txt", "/x/ä.tif\r\n"), ("list.csv", "path,note\r\n/x/ä.tif,\r\n")]
)
def test_lists_of_windows_editors_begin_with_a_mark(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert _find(tmp_path / name) == ["/x/ä.tif"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.txt", b"\xe4.tif", r"text in UTF-8; .*list.txt is none: .*0xe4"),
        ("list.csv", b"path\n\xe4.tif", r"table in UTF-8; .*list.csv is none: .*0xe4"),
        ("list.txt", b"a\0b.tif", r"text in UTF-8; .*null"),
        ("list.parquet", b"PAR", r"a Parquet table; .*list.parquet is none"),
    ],
)
def test_lists_that_are_none(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        _find(tmp_path / name)


def test_a_name_that_is_no_text_is_told(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.tif")
    with pytest.raises(ConfigError, match=r"UTF-8.*rename .*xe4\.tif"):
        _find(path)


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/x/a.tif\n{S3}\n"))
    assert _find("-") == ["/x/a.tif", S3]


@pytest.mark.parametrize("header", ["id,URI", "href,other", "path"])
def test_a_csv_table(tmp_path, header):
    column = [name.lower() in sources.COLUMNS for name in header.split(",")].index(True)
    rows = [["-"] * len(header.split(",")) for _ in range(2)]
    rows[0][column], rows[1][column] = "/x/a.tif", S3
    path = tmp_path / "list.csv"
    path.write_text("\n".join([header, *map(",".join, rows)]))
    assert _find(path) == ["/x/a.tif", S3]


def test_a_table_without_scenes(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("id,cloud\n1,2\n")
    with pytest.raises(ConfigError, match=r"has a column uri.*has id, cloud"):
        _find(path)


def test_a_parquet_table(tmp_path):
    parquet.write_table(pa.table({"n": [1, 2], "uri": ["/x/a.tif", S3]}), tmp_path / "list.parquet")
    assert _find(tmp_path / "list.parquet") == ["/x/a.tif", S3]


def _stac_item(name, assets, *links):
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "assets": assets,
        "links": [{"rel": "self", "href": href} for href in links],
    }


DATA = {"href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
PICTURE = {"href": "./a.png", "type": "image/png", "roles": ["data"]}


def test_stac_items(tmp_path):
    items = [
        _stac_item("one", {"image": DATA, "picture": PICTURE}, "https://host/one.json"),
        _stac_item("bands", {"B03": DATA, "B08": DATA}, "https://host/bands.json"),
        _stac_item("far", {"image": {**DATA, "href": S3}}),
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    wanted = [str(tmp_path / "a.tif"), "https://host/bands.json", S3]
    assert _find(path) == wanted
    table = tmp_path / "items.parquet"
    parquet.write_table(pa.Table.from_pylist(items), table)
    assert _find(table) == wanted


def test_a_stac_item_by_itself(tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(_stac_item("one", {"image": DATA})))
    assert _find(tmp_path / "item.json") == [str(tmp_path / "a.tif")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must be a STAC item or item collection"),
        ("{", "must be a STAC item or item collection"),
        ('{"type": "FeatureCollection", "features": [1]}', "must be a STAC item or item coll"),
        (json.dumps(_stac_item("x", {"a": {**DATA, "roles": 1}})), "must be a STAC item or item c"),
        (json.dumps(_stac_item("x", {"a": PICTURE})), "x has 0 such assets"),
    ],
)
def test_json_that_is_no_catalogue(tmp_path, text, message):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        _find(tmp_path / "items.json")


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no"):
        _find(tmp_path / "list.txt")


def test_scenes_are_found_one_by_one(monkeypatch):
    """An endless list gives its first scenes at once."""
    endless = (f"/x/{i}.tif" for i in iter(int, 1))
    monkeypatch.setattr("sys.stdin", endless)
    assert len(list(islice(find_scenes(["-"], output=Path("/o")), 5))) == 5


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/vsis3/bucket/a.tif", "s3://bucket/a.tif"),
        ("/vsigs_streaming/bucket/a.tif", "gs://bucket/a.tif"),
        ("/vsicurl/https://host/a.tif", "https://host/a.tif"),
        (S3, S3),
    ],
)
def test_gdals_paths_as_urls(path, url):
    assert buckets.url_of(path) == url


# -- identity --------------------------------------------------------------------------------------


def test_identity_is_size_and_time(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"12")
    first = identify(str(path))
    assert identify(str(path)) == first
    os.utime(path, ns=(0, 5))
    second = identify(str(path))
    path.write_bytes(b"123")
    os.utime(path, ns=(0, 5))
    assert len({first, second, identify(str(path))}) == 3


def test_identity_of_what_is_not_there(tmp_path):
    assert identify(str(tmp_path / "a.tif")) is None


def test_what_no_disk_has_is_left_to_who_reads_it(tmp_path):
    """A line that is too long for a name fails alone, and not the whole list."""
    (tmp_path / "list.txt").write_text("/x/a.tif\n/" + "x" * 300)
    assert _find(tmp_path / "list.txt") == ["/x/a.tif", "/" + "x" * 300]
    assert _find("/" + "x" * 300) == ["/" + "x" * 300]


def test_identity_of_a_folder_with_names_in_latin_1(archive):
    first = identify(str(archive / "p.SAFE"))
    (archive / "p.SAFE" / os.fsdecode(b"\xe4")).write_bytes(b"")
    assert identify(str(archive / "p.SAFE")) not in {None, first}


def test_identity_of_a_folder_is_that_of_all_its_files(archive):
    first = identify(str(archive / "p.SAFE"))
    (archive / "p.SAFE" / "inside.jp2").write_bytes(b"1")
    assert identify(str(archive / "p.SAFE")) != first


@pytest.mark.parametrize(
    "uri", ["/vsizip/{}/a.zip/x.tif", "zip://{}/a.zip!x.tif", "file://{}/a.zip"]
)
def test_identity_inside_an_archive_is_the_archives(tmp_path, uri):
    path = tmp_path / "a.zip"
    path.write_bytes(b"1")
    assert identify(uri.format(tmp_path)) == identify(str(path)) is not None


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ({}, {}),
        (
            {"AWS_S3_ENDPOINT": "host:1", "AWS_HTTPS": "NO"},
            {"endpoint": "http://host:1", "client_options": {"allow_http": True}},
        ),
        (
            {"AWS_S3_ENDPOINT": "host", "AWS_NO_SIGN_REQUEST": "YES"},
            {
                "endpoint": "https://host",
                "client_options": {"allow_http": False},
                "skip_signature": True,
            },
        ),
    ],
)
def test_gdals_settings_mean_the_same_to_listings(env, settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert buckets._settings("s3", env) == settings
    assert buckets._settings("https", env) == {}


def test_keys_of_a_profile_are_found_as_gdal_finds_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "config").write_text("[profile far]\nregion = eu-west-3\n")
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = d%\n"
        "[far]\naws_access_key_id = F\naws_secret_access_key = f\naws_session_token = t\n"
    )
    default = {"aws_access_key_id": "D", "aws_secret_access_key": "d%"}
    far = {"aws_access_key_id": "F", "aws_secret_access_key": "f", "aws_session_token": "t"}
    assert buckets._settings("s3", {}) == default
    assert buckets._settings("s3", {"AWS_PROFILE": "far"}) == {**far, "region": "eu-west-3"}
    assert buckets._settings("s3", {"AWS_PROFILE": "far", "AWS_REGION": "x"}) == far
    assert buckets._settings("s3", {"AWS_ACCESS_KEY_ID": "E", "AWS_PROFILE": "far"}) == {}
    own = {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "none")}
    assert buckets._settings("s3", own) == {}


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "template", "target"),
    [
        ("/in/x/a.tif", "{stem}", "a"),
        ("/in/x/a.tif", "{parent}/{stem}", "x/a"),
        ("/in/x/a_20240131.tif", "{date}/{stem}", "2024-01-31/a_20240131"),
        ("/in/2024-01-31/a.tif", "{date}-{stem}", "2024-01-31-a"),
        ("/in/x/S2B_MSIL1C_20240131T1.SAFE", "{stem}", "S2B_MSIL1C_20240131T1"),
        ("/in/S2B.SAFE.zip", "{stem}", "S2B"),
        ("s3://bucket/x/a.tif", "{parent}/{stem}", "x/a"),
        ("https://host/x/a.tif?sig=/1.2", "{parent}/{stem}", "x/a"),
        ("/not/there.tif", "{date}/{stem}", "undated/there"),
        ("/a.tif", "{parent}/{stem}", "root/a"),
    ],
)
def test_names_of_outputs(uri, template, target):
    check_template(template)
    assert target_of(uri, template) == target


def test_the_date_may_come_from_the_tags(make_raster):
    path = make_raster(np.ones((1, 2, 2), np.uint8))
    with rasterio.open(path, "r+") as file:
        file.update_tags(ACQUIRED="2023-05-01T10:50:31Z")
    assert target_of(str(path), "{date}") == "2023-05-01"


@pytest.mark.parametrize(
    "template",
    [
        "scene",
        "{name}",
        "{stem",
        "/abs/{stem}",
        "../{stem}",
        "{stem}/",
        "{0}",
        "{}",
        "{stem:d}",
        "{stem:>{x}}",
        "{stem!z}",
    ],
)
def test_templates_that_are_refused(template):
    with pytest.raises(ConfigError, match="--name"):
        check_template(template)
