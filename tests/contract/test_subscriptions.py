"""Subscriptions: the last change is never missed, whichever store made it, and they end when they should."""

from __future__ import annotations

import random
import threading

from contract.helping import Listener, commit, increment


class TestNotifying:
    def test_every_change_is_told(self, place, listen):
        """After a change by this or another store, including the very first one, the function is called."""
        listener, other = Listener(place.store()), place.store()
        listen(listener)
        for number, store in enumerate((other, listener.store, other, other)):
            commit(store, {"n": number})
            place.until(lambda number=number: listener.has_seen(number))

        assert [] == listener.errors

    def test_also_one_by_another_process(self, shared_place, elsewhere, listen):
        """After a change by another process, the function is called."""
        listener, other = Listener(shared_place.store()), elsewhere()
        listen(listener)
        for number in (1, 2, 3):
            other.do("increment(store)")
            shared_place.until(lambda number=number: listener.has_seen(number))

    def test_it_is_in_another_thread(self, place, listen):
        """The function is not called by the thread that subscribes or commits."""
        listener = Listener(place.store())
        listen(listener)
        commit(listener.store, {"n": 1})
        place.until(lambda: listener.has_seen(1))

        assert threading.current_thread() not in listener.threads

    def test_all_subscriptions_are_told(self, place, listen):
        """Several subscriptions, of one store or of several, are each notified of every change."""
        store = place.store()
        listeners = [Listener(store), Listener(store), Listener(place.store())]
        for listener in listeners:
            listen(listener)
        for number in (1, 2):
            commit(store, {"n": number})
            place.until(lambda number=number: all(listener.has_seen(number) for listener in listeners))

    def test_a_change_during_a_call_leads_to_another_one(self, place, listen):
        """A commit while the function runs, after it has read, leads to another call as soon as it returns."""
        reading, go_on = threading.Event(), threading.Event()

        class Slow(Listener):
            def notify(self):
                goes_on = super().notify()
                if self.has_seen(1):
                    reading.set()
                    go_on.wait(place.patience)
                return goes_on

        listener, other = Slow(place.store()), place.store()
        listen(listener)
        commit(other, {"n": 1})
        place.until(reading.is_set)
        commit(other, {"n": 2})
        commit(other, {"n": 3})
        go_on.set()
        place.until(lambda: listener.has_seen(3))

    def test_the_last_change_is_told_at_whatever_moment_it_comes(self, place, listen):
        """Whenever changes come between the calls of a slow function, there is one call after the last of them."""

        class Slow(Listener):
            def notify(self):
                goes_on = super().notify()
                tick.wait(chance.random() * 0.002)
                return goes_on

        chance, tick, total = random.Random(0), threading.Event(), 0
        listener, others = Slow(place.store()), [place.store(), place.store()]
        listen(listener)
        for _ in range(20):
            for _ in range(chance.randint(1, 4)):
                increment(chance.choice([listener.store, *others]), "n")
                total += 1
                tick.wait(chance.random() * 0.003)
            place.until(lambda: listener.has_seen(total))


class TestEnding:
    def test_a_closed_one_is_not_told(self, place, listen):
        """After it is closed, once or several times, the thread ends and the function is not called any more."""
        listener, other = Listener(place.store()), place.store()
        subscription = listen(listener)
        commit(other, {"n": 1})
        place.until(lambda: listener.has_seen(1))
        subscription.close()
        subscription.close()
        place.until(listener.has_ended)
        commit(other, {"n": 2})

        assert listener.has_seen(1)

    def test_it_may_be_closed_by_the_function(self, place, listen):
        """The function may close its own subscription."""

        class Closing(Listener):
            def notify(self):
                goes_on = super().notify()
                subscribed.wait(place.patience)
                subscription.close()
                return goes_on

        subscribed = threading.Event()
        listener = Closing(place.store())
        subscription = listen(listener)
        subscribed.set()
        commit(place.store(), {"n": 1})
        place.until(listener.has_ended)

    def test_one_ends_without_the_others(self, place, listen):
        """Closing a subscription does not affect others of the same store."""
        store = place.store()
        stays, goes = Listener(store), Listener(store)
        listen(stays)
        listen(goes).close()
        commit(store, {"n": 1})
        place.until(lambda: stays.has_seen(1))

    def test_the_function_may_end_it(self, place, listen):
        """The function is not called again once it has returned False."""
        listener, other = Listener(place.store()), place.store()
        listener.goes_on = False
        listen(listener)
        commit(other, {"n": 1})
        place.until(listener.has_ended)
        commit(other, {"n": 2})

        assert (1, []) == (len(listener.seen), listener.errors)

    def test_an_error_is_told_before_the_last_call(self, place, listen):
        """An error that ends the thread is passed on, and then the function is called for the last time."""
        error, told = RuntimeError("it fails"), []

        class Failing(Listener):
            def notify(self):
                super().notify()
                told.append(list(self.errors))
                if len(told) == 1:
                    raise error
                return True

        listener = Failing(place.store())
        listen(listener)
        commit(place.store(), {"n": 1})
        place.until(listener.has_ended)

        assert [[], [error]] == told
