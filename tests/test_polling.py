"""How exca waits: the one poller of all rooms."""

import threading

from exca._polling import Poller


def test_the_time_is_over_at_the_timeout() -> None:
    assert not Poller(timeout=0.0).pause()
    poller, pauses = Poller(timeout=0.02), 0
    while poller.pause():
        pauses += 1
    assert pauses
    assert poller.left == 0.0
    assert Poller().left is None


def test_an_event_ends_a_pause() -> None:
    wake = threading.Event()
    wake.set()
    assert Poller(wake=wake).pause(at_least=3600.0)
    assert not wake.is_set()


def test_what_is_done_now_and_then() -> None:
    poller = Poller(timeout=30.0)
    assert not poller.is_time_once("tell", after=3600.0)
    assert not poller.is_time_to("look", every=3600.0)
    while not poller.is_time_to("look", every=3600.0):  # sooner than that, as long as the pauses are short
        assert poller.pause()
    assert not poller.is_time_to("look", every=3600.0)
    assert poller.is_time_once("tell", after=0.0)
    assert not poller.is_time_once("tell", after=0.0)
