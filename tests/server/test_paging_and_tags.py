"""Long lists come a page at a time; what never changes is not sent twice."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from api_story import ORDER, StoryServer
from hand_built import Client, is_problem

from auditor_server.access.accounts import add_organisation
from auditor_server.access.trail import MOST_ENTRIES_PER_PAGE as MOST_TRAIL_ENTRIES
from auditor_server.api.paging import ITEMS_PER_PAGE, MOST_ITEMS_PER_PAGE, from_cursor, to_cursor
from auditor_server.errors import InvalidParameterError
from auditor_server.registry import MOST_ENTRIES_PER_PAGE
from auditor_server.store import OrderRow, Place, Store
from auditor_server.store.engine import make_engine

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def pages(client: Client, path: str) -> list[requests.Response]:
    """Follow `Link` to the end."""
    found = [client.get(path)]
    while "next" in found[-1].links:
        address = urljoin(found[-1].url, found[-1].links["next"]["url"])
        found.append(client.get(address.partition("/v1")[2]))
    assert all(page.status_code == 200 for page in found)
    return found


@pytest.mark.parametrize(("path", "name"), [("/orders", "order_id"), ("/sessions", "id")])
def test_lists_are_whole_whatever_the_size_of_their_pages(
    story_server: StoryServer, path: str, name: str
) -> None:
    client = story_server.client("auditor")
    (whole,) = pages(client, path)
    expected = [item[name] for item in whole.json()]
    assert len(expected) > 1
    for limit in (1, 2):
        found = [page.json() for page in pages(client, f"{path}?limit={limit}")]
        assert max(map(len, found)) == limit
        assert [item[name] for page in found for item in page] == expected


def test_draws_entries_and_the_trail_have_pages(story_server: StoryServer) -> None:
    auditor = story_server.client("auditor")
    path = f"/sessions/{story_server.submitted}/draws"
    for _ in range(2):
        assert auditor.post(path, json={"uniform": 1}).status_code == 201
    (whole,) = pages(auditor, path)
    singly = pages(auditor, f"{path}?limit=1")
    assert [page.json()["draws"][0] for page in singly if page.json()["draws"]] == whole.json()[
        "draws"
    ]

    (registry,) = pages(auditor, "/registry/entries?end=7")
    parts = [page.json()["leaves"] for page in pages(auditor, "/registry/entries?end=7&limit=3")]
    assert list(map(len, parts)) == [3, 3, 1]
    assert [leaf for part in parts for leaf in part] == registry.json()["leaves"]

    found = pages(auditor, f"/audit-trail?limit=2&session_id={story_server.submitted}")
    entries = [entry for page in found for entry in page.json()["entries"]]
    assert len(found) > 2
    assert {entry["session_id"] for entry in entries} == {story_server.submitted}
    numbers = [entry["number"] for entry in entries]
    assert numbers == sorted(numbers, reverse=True)
    assert found[0].json()["before"] == numbers[1]


@pytest.mark.parametrize(
    ("path", "default", "most"),
    [
        ("/orders", ITEMS_PER_PAGE, MOST_ITEMS_PER_PAGE),
        ("/sessions", ITEMS_PER_PAGE, MOST_ITEMS_PER_PAGE),
        ("/registry/entries", MOST_ENTRIES_PER_PAGE, MOST_ENTRIES_PER_PAGE),
        ("/audit-trail", MOST_TRAIL_ENTRIES, MOST_TRAIL_ENTRIES),
    ],
)
def test_no_page_is_longer_than_the_server_says(
    story_server: StoryServer, path: str, default: int, most: int
) -> None:
    client = story_server.client("auditor")
    operation = client.get("/openapi.json").json()["paths"][f"/v1{path}"]["get"]
    (limit,) = (one["schema"] for one in operation["parameters"] if one["name"] == "limit")
    assert (limit["default"], limit["maximum"]) == (default, most)
    for wrong in (0, most + 1):
        answer = client.get(f"{path}?limit={wrong}")
        assert is_problem(answer, 422, "InvalidParameterError")


@pytest.mark.parametrize("cursor", ["x", "AAAA", "MjAyNi0xMS0yMQ", "OTk5OTk5LTAxLTAxIHg", "_w"])
def test_a_cursor_that_was_made_up_is_refused(story_server: StoryServer, cursor: str) -> None:
    answer = story_server.client("auditor").get(f"/orders?cursor={cursor}")
    assert is_problem(answer, 422, "InvalidParameterError")


def test_a_cursor_leads_to_its_place() -> None:
    place = Place(NOW + timedelta(microseconds=1), "a-name")
    assert from_cursor(to_cursor(place)) == place
    assert from_cursor(None) is None
    with pytest.raises(InvalidParameterError):
        from_cursor("not a cursor")


def test_orders_of_one_moment_and_of_others_organisations(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'orders.sqlite3'}")
    store = Store(engine)
    store.prepare()
    add_organisation(store, "first", "First Ltd", NOW)
    add_organisation(store, "second", "Second Ltd", NOW)
    for name, developer in [("a", "First Ltd"), ("b", "Second Ltd"), ("c", "Nobody's"), ("d", "")]:
        row = OrderRow(
            order_id=name,
            digest=sha256(name.encode()).hexdigest(),
            developer=developer,
            envelope=b'{"payload":"e30=","signatures":[{"sig":""}]}',
            received_at=NOW,
        )
        store.add_order(row)
    seen = {None: "abcd", "first": "acd", "second": "bcd", "third": "cd"}
    for organisation, expected in seen.items():
        page = store.lists.orders(organisation, None, None, 9)
        assert "".join(row.order_id for row in page) == expected
        following = store.lists.orders(organisation, None, Place(NOW, page[0].order_id), 9)
        assert "".join(row.order_id for row in following) == expected[1:]
        assert store.lists.count_orders(organisation, None) == len(expected)
        newest = store.lists.newest_orders(organisation, None, first=1, most=2)
        assert "".join(row.order_id for row in newest) == expected[::-1][1:3]
    assert store.lists.count_orders("first", "b") == 0
    store.close()


@pytest.mark.parametrize(
    ("path", "cached"),
    [
        (f"/orders/{ORDER}", "private, no-cache"),
        ("/trust-root", "public, no-cache"),
        ("/trust-root/1", "public, max-age=31536000, immutable"),
        ("/registry/entries/1", "public, max-age=31536000, immutable"),
        ("/sessions/{session_id}/bundle", "private, no-cache"),
    ],
)
def test_what_never_changes_is_sent_once(story_server: StoryServer, path: str, cached: str) -> None:
    client = story_server.client("auditor")
    path = path.replace("{session_id}", story_server.submitted)
    first = client.get(path)
    tag = first.headers["ETag"]
    assert tag == f'"{sha256(first.content).hexdigest()}"'
    assert first.headers["Cache-Control"] == cached
    for known in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["Cache-Control"] == cached
    other = client.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_who_may_not_see_a_document_is_not_told_that_it_is_the_same(
    story_server: StoryServer,
) -> None:
    path = f"/orders/{ORDER}"
    tag = story_server.client("auditor").get(path).headers["ETag"]
    refused = story_server.client(None).get(path, headers={"If-None-Match": tag})
    assert is_problem(refused, 401, "NotAuthenticatedError")


@pytest.mark.parametrize("path", ["/orders", "/sessions", "/audit-trail", "/health"])
def test_what_changes_is_kept_by_nobody(story_server: StoryServer, path: str) -> None:
    answer = story_server.client("auditor").get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers
