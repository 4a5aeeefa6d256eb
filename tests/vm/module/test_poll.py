# SPDX-License-Identifier: GPL-2.0-only
"""poll() and epoll: the device is ready when a message of the largest size fits."""

from __future__ import annotations

from errno import EAGAIN

from .conftest import EPOLLET, EPOLLOUT, POLL_READY, StarvedConsumer, two_cpus

pytestmark = two_cpus


def test_poll_wants_room_for_the_longest_message(starved: StarvedConsumer) -> None:
    """POLLOUT | POLLWRNORM and no more with 4096 bytes of room; with 4095 there is no event.

    A shorter message is accepted all the same.
    """
    writer = starved.writer
    assert writer.poll() == POLL_READY
    assert writer.writev(*[4096] * 15) == 61440
    assert writer.poll() == POLL_READY
    assert writer.write(1) == 1
    assert writer.poll() == 0
    assert writer.write(1) == 1
    starved.drain()
    assert writer.poll() == POLL_READY


def test_poll_sleeps_until_there_is_room(starved: StarvedConsumer) -> None:
    """poll() without a limit sleeps while the queue is full and returns when it is not."""
    writer = starved.writer
    writer.fill()
    job = writer.start("poll -1")
    job.wait_until_asleep()
    starved.release()
    assert job.result() == POLL_READY


def test_epoll_shows_the_level(starved: StarvedConsumer) -> None:
    """Level-triggered: an event each time while there is room, none while there is not."""
    writer = starved.writer
    assert writer.call("epoll", 0) == 0
    assert writer.call("epoll_wait", 0) == EPOLLOUT
    assert writer.call("epoll_wait", 0) == EPOLLOUT
    writer.fill()
    assert writer.call("epoll_wait", 0) == 0
    starved.release()
    assert writer.call("epoll_wait", 10000) == EPOLLOUT


def test_epoll_edge_triggered_comes_after_eagain(starved: StarvedConsumer) -> None:
    """Edge-triggered: whoever writes until EAGAIN and then waits is told, every time."""
    writer = starved.writer
    assert writer.call("nonblock", 1) == 0
    assert writer.call("epoll", EPOLLET) == 0
    assert writer.call("epoll_wait", 0) == EPOLLOUT
    assert writer.call("epoll_wait", 0) == 0
    for _ in range(3):
        writer.fill()
        assert writer.write(1) == -EAGAIN
        assert writer.call("epoll_wait", 0) == 0
        starved.drain()
        assert writer.call("epoll_wait", 10000) == EPOLLOUT
        starved.starve()
