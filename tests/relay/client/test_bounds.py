"""The deadlines of clients' connections: without a connection, and by a fake clock."""

from __future__ import annotations

from relay.client.bounds import GRACE_SECONDS, ClientTimeouts, ConnectionBounds
from relay.memory.requests import SMALL_BODY_BYTES, HeldBytes, Holding, RequestBudget

MIB = 1024 * 1024


class Connection:
    """Counts how often it was given up; `blameless`: what is waited for is not its doing, `takes`: it has taken bytes."""

    def __init__(self, *, blameless: bool = False, takes: bool = False) -> None:
        self.given_up: list[str] = []
        self.blameless = blameless
        self.takes = takes

    def give_up_head(self) -> None:
        self.given_up.append("head")

    def give_up_body(self) -> bool:
        self.given_up += [] if self.blameless else ["body"]
        return not self.blameless

    def give_up_unsent(self) -> bool:
        self.given_up += [] if self.takes else ["unsent"]
        return not self.takes


def bounds_at(now: list[float], rejected: list[str]) -> ConnectionBounds:
    return ConnectionBounds(
        ClientTimeouts(head=10, body=30, write=20),
        most=0,
        budget=RequestBudget(MIB),
        reject=lambda reason, cause="": rejected.append(reason),
        clock=lambda: now[0],
    )


def test_each_wait_has_its_own_deadline_and_is_over_once() -> None:
    now, rejected = [0.0], list[str]()
    bounds = bounds_at(now, rejected)
    head, body, unsent = Connection(), Connection(), Connection()
    bounds.heads.began(head)
    bounds.bodies.began(body)
    bounds.unsent.began(unsent)
    for now[0] in (9.9, 10, 20, 29.9 + GRACE_SECONDS, 30 + GRACE_SECONDS, 100):
        bounds.end_overdue()
    assert (head.given_up, body.given_up, unsent.given_up) == (["head"], ["body"], ["unsent"])
    assert rejected == ["head_timeout", "body_timeout"]


def test_who_is_not_to_blame_is_waited_for_again() -> None:
    now, rejected = [0.0], list[str]()
    bounds = bounds_at(now, rejected)
    waiting, reading = Connection(blameless=True), Connection(takes=True)
    bounds.bodies.began(waiting)
    bounds.unsent.began(reading)
    now[0] = 40
    bounds.end_overdue()
    assert (len(bounds.bodies), len(bounds.unsent)) == (1, 1)
    waiting.blameless = reading.takes = False
    now[0] = 80
    bounds.end_overdue()
    assert (waiting.given_up, reading.given_up) == (["body"], ["unsent"])


def test_who_is_gone_is_not_waited_for() -> None:
    now, rejected = [0.0], list[str]()
    bounds = bounds_at(now, rejected)
    connection = Connection()
    for waits in (bounds.heads, bounds.bodies, bounds.unsent):
        waits.began(connection)
    bounds.forget(connection)
    now[0] = 1000
    bounds.end_overdue()
    assert connection.given_up == []


def test_large_bodies_leave_room_for_small_ones() -> None:
    budget = RequestBudget(MIB)
    large = [Holding(budget) for _ in range(20)]
    assert sum(each.grow(2 * SMALL_BODY_BYTES) for each in large) == 6
    small = [Holding(budget) for _ in range(20)]
    assert sum(each.grow(SMALL_BODY_BYTES) for each in small) == 4
    assert not budget.grow_head(1)
    assert budget.bodies == MIB
    del large, small
    assert budget.bodies == 0


def test_a_body_is_charged_as_long_as_anybody_has_a_part_of_it() -> None:
    budget = RequestBudget(MIB)
    holding = Holding(budget)
    assert holding.grow(5)
    body = HeldBytes.of([b"he", b"llo"], holding)
    del holding
    part = memoryview(body)[1:3]
    del body
    assert (bytes(part), budget.bodies) == (b"el", 5)
    part.release()
    assert budget.bodies == 0
