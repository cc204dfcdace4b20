"""A signal or an asynchronous exception interrupts a blocking call: nothing hangs."""

from __future__ import annotations

import pytest

from striking import START

# ---------------------------------------- Ctrl-C while a call is carried out

AT_THE_END = (
    START
    + """
real = os.fsync

def interrupting(descriptor):
    os.fsync = real
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)  # long enough for the main thread to be woken by the signal
    return real(descriptor)

calls = {"incr": lambda ctx: ctx.incr("n"), "save": lambda ctx: (ctx.set("n", 1), ctx.save())}

for number in range(3):
    ctx = SyncPersistentContext(f"{path}-{number}", lock_timeout=5)
    os.fsync = interrupting
    try:
        if sys.argv[2] == "transaction":
            with ctx.transaction() as tx:
                tx["n"] = 1
        else:
            calls[sys.argv[2]](ctx)
        print("not interrupted")
    except KeyboardInterrupt:
        ctx["stopped"] = True
        ctx.save()
    assert stored(ctx.filepath) == {"n": 1, "stopped": True}, stored(ctx.filepath)
    assert_free(ctx.filepath)
print("saved")
"""
)

AT_ANY_MOMENT = (
    START
    + """
def interrupt(*_):
    raise KeyboardInterrupt

def innermost(error):  # the name of the function that was interrupted
    names = [entry.name for entry in traceback.extract_tb(error.__traceback__)]
    return names[-2]  # before the handler

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
SyncPersistentContext(path, durable=False).incr("n", 0)
for number in range(300):
    ctx = SyncPersistentContext(path, lock_timeout=5, durable=False)
    before = stored()["n"]
    try:
        signal.setitimer(signal.ITIMER_REAL, number * 0.00002 + 0.00001)
        with ctx.transaction() as tx:
            tx["n"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt as error:
        if innermost(error) == "__exit__":  # raised at its very beginning: the traceback keeps the transaction
            error.__traceback__ = None
            gc.collect()
        interrupted += 1
        ctx["stopped"] = number
        ctx.save()
        assert stored()["stopped"] == number
        assert stored()["n"] - before in (0, 1)
    assert_free()
assert interrupted
print("saved")
"""
)


class TestAnInterruptWhileACallIsCarriedOut:
    @pytest.mark.parametrize("call", ["transaction", "incr", "save"])
    def test_the_handler_of_the_interrupt_can_save(self, path, run, call):
        """Ctrl-C during a commit propagates when the commit is over, and the code that catches it can save at once."""
        assert ["saved"] == run(AT_THE_END, path, call)

    def test_at_any_moment_of_a_transaction(self, path, run):
        """Whenever Ctrl-C comes, the transaction is over, whole or not at all, and code that catches it can save."""
        assert ["saved"] == run(AT_ANY_MOMENT, path)


# ---------------------------------------- an exception while a call waits

WHILE_WAITING = (
    START
    + """
signal.signal(signal.SIGALRM, soft_time_limit)

def hold(path, holder, held, let_go):
    if holder == "program":
        with filelock.FileLock(path + ".lock"):
            held.set()
            let_go.wait()
    else:
        with SyncPersistentContext(path).transaction():
            held.set()
            let_go.wait()

def wait(ctx, call):
    if call == "incr":
        ctx.incr("n")
    elif call == "save":
        ctx.save()
    elif call == "mutate":
        ctx.mutate("n", lambda value: 1)
    else:
        with ctx.transaction() as tx:
            tx["n"] = 1

for call in ("incr", "save", "mutate", "transaction"):
    file = f"{path}-{call}"
    held, let_go = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=[file, sys.argv[2], held, let_go])
    thread.start()
    held.wait()
    ctx = SyncPersistentContext(file, lock_timeout=60)
    ctx["mine"] = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        wait(ctx, call)
        print(call, "was not interrupted")
    except SoftTimeLimit:
        print(call, "ended")
    let_go.set()
    thread.join()
    fresh = SyncPersistentContext(file, lock_timeout=5)
    fresh.incr("probe")
    fresh.incr("probe")
    assert_free(file)
    print(stored(file))
    ctx.save()
    print(stored(file))
"""
)

FROM_ANOTHER_THREAD = (
    START
    + """
call = sys.argv[2]
for number in range(3):
    file = f"{path}-{number}"
    lock = filelock.FileLock(file + ".lock", thread_local=False)
    lock.acquire()
    ctx = SyncPersistentContext(file, lock_timeout=60)
    outcome = []

    def work():
        try:
            if call == "incr":
                ctx.incr("n")
            else:
                with ctx.transaction() as tx:
                    tx["n"] = 1
            outcome.append("done")
        except SoftTimeLimit:
            outcome.append("raised")

    thread = threading.Thread(target=work)
    thread.start()
    while opened(file) < 2:
        time.sleep(0.001)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SoftTimeLimit))
    thread.join(4)  # the exception comes as soon as the thread runs, which may be before the lock is free
    in_time = not thread.is_alive()
    lock.release()
    thread.join(4)
    assert not thread.is_alive(), "the thread hangs"
    fresh = SyncPersistentContext(file, lock_timeout=3)
    fresh.incr("probe")
    fresh.incr("probe")
    assert_free(file)
    if in_time:
        assert outcome == ["raised"], outcome
        assert stored(file) == {"probe": 2}, stored(file)
    else:
        assert stored(file) in ({"probe": 2}, {"n": 1, "probe": 2}), stored(file)
    assert ctx.incr("probe") == 3
print("all ended")
"""
)


class TestAnExceptionWhileACallWaits:
    @pytest.mark.parametrize("holder", ["program", "thread"])
    def test_a_handler_that_raises_withdraws_the_call(self, path, run, holder):
        """A signal handler's exception ends a waiting call, which has no later effect and does not get the lock."""
        calls = ["incr", "save", "mutate", "transaction"]
        ends = [[f"{call} ended", "{'probe': 2}", "{'probe': 2, 'mine': 1}"] for call in calls]

        assert sum(ends, []) == run(WHILE_WAITING, path, holder)

    @pytest.mark.parametrize("call", ["incr", "transaction"])
    def test_an_exception_that_another_thread_sets(self, path, run, call):
        """An exception set by another thread withdraws a waiting call, or is raised when the call is over."""
        assert ["all ended"] == run(FROM_ANOTHER_THREAD, path, call)


# ---------------------------------------- a handler that makes calls

SAVING_HANDLER = (
    START
    + """
what, calls = sys.argv[2:4]
ctx = SyncPersistentContext(path, lock_timeout=60, durable=False)
other = SyncPersistentContext(path, lock_timeout=60, durable=False) if calls == "another" else ctx
handled = refused = 0
handling = False

def terminate(*_):
    global handled, refused, handling
    if handling:
        return
    handling = True
    handled += 1
    try:
        other["stopped"] = handled
        other.save()
    except PersistentContextError as error:
        assert not isinstance(error, LockTimeoutError), error
        refused += 1
    else:
        assert stored()["stopped"] == handled
    handling = False

def send():
    while sending:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.002)

signal.signal(signal.SIGTERM, terminate)
ctx.save()
sending = True
thread = threading.Thread(target=send, daemon=True)
thread.start()
until = time.monotonic() + 1
number = 0
while time.monotonic() < until or handled <= 10:
    number += 1
    if what == "set":
        ctx["n"] = number
    elif what == "save":
        ctx["n"] = number
        ctx.save()
    elif what == "incr":
        assert ctx.incr("n") == number
    elif what == "transaction":
        try:
            with ctx.transaction() as tx:
                tx["n"] = number
        except PersistentContextError as error:
            assert not isinstance(error, LockTimeoutError), error
    else:
        ctx["n"] = number
        assert ctx.get_all_data()["n"] == number
        ctx.unsaved_keys()
        del ctx["n"]
sending = False
thread.join()
ctx["last"] = True
ctx.save()
assert_free()
assert stored()["last"]
if what != "memory":
    assert stored()["n"] == number, stored()
print("ended")
"""
)

WATCHING = (
    START
    + """
ctx = SyncPersistentContext.create(path, lock_timeout=60, durable=False)
handled = 0
handling = False
enough = threading.Event()

def write():
    other = SyncPersistentContext(path, lock_timeout=60, durable=False)
    while not enough.is_set():
        other.incr("n")

def send():
    while not enough.wait(0.002):
        os.kill(os.getpid(), signal.SIGTERM)

def terminate(*_):
    global handled, handling
    if handling:
        return
    handling = True
    with contextlib.suppress(PersistentContextError):
        handled += 1
        ctx["stopped"] = handled
        ctx.save()
    handling = False

signal.signal(signal.SIGTERM, terminate)
threads = [threading.Thread(target=one, daemon=True) for one in (write, send)]
for thread in threads:
    thread.start()
until = time.monotonic() + 1
for changes in ctx.watch("n"):
    if time.monotonic() > until and handled > 10:
        break
enough.set()
for thread in threads:
    thread.join()
ctx["last"] = True
ctx.save()
assert_free()
assert stored()["last"]
print("ended")
"""
)

ON_A_LOOP = (
    START
    + """
import asyncio

blocking = SyncPersistentContext(path, lock_timeout=60, durable=False)
handled = 0
handling = False

def terminate(*_):
    global handled, handling
    if handling:
        return
    handling = True
    handled += 1
    try:
        blocking["stopped"] = handled
        blocking.save()
    except PersistentContextError as error:
        assert not isinstance(error, LockTimeoutError), error
    handling = False

def send():
    while not enough.wait(0.002):
        os.kill(os.getpid(), signal.SIGTERM)

async def main():
    ctx = PersistentContext(path, lock_timeout=60, durable=False)
    until = time.monotonic() + 1
    done = 0
    while time.monotonic() < until or handled <= 10:
        await ctx.incr("n")
        async with ctx.transaction() as tx:
            tx["n"] += 1
        done += 2
    enough.set()
    thread.join()
    assert await ctx.incr("n", 0) == done

signal.signal(signal.SIGTERM, terminate)
enough = threading.Event()
thread = threading.Thread(target=send, daemon=True)
thread.start()
asyncio.run(main())
assert_free()
print("ended")
"""
)


class TestAHandlerThatCalls:
    @pytest.mark.parametrize("calls", ["the same", "another"])
    @pytest.mark.parametrize("what", ["set", "save", "incr", "transaction", "memory"])
    def test_a_handler_that_saves_works_or_is_refused(self, path, run, what, calls):
        """A SIGTERM handler that saves, whatever it interrupts, works or is refused at once; nothing hangs."""
        assert ["ended"] == run(SAVING_HANDLER, path, what, calls)

    def test_a_handler_that_saves_while_the_main_thread_watches(self, path, run):
        """While the main thread watches, a handler can save and all other writers can write."""
        assert ["ended"] == run(WATCHING, path)

    def test_a_blocking_save_in_a_handler_of_a_program_with_a_loop(self, path, run):
        """A handler's blocking save during the loop's own calls works or is refused at once; the loop goes on."""
        assert ["ended"] == run(ON_A_LOOP, path)


# ---------------------------------------- an exception at every place

AT_EVERY_PLACE = (
    START
    + """
import persistent_context

grain, sixth = sys.argv[2], int(sys.argv[3])
home = os.path.dirname(persistent_context.__file__)

class Strike:
    def __init__(self, at):
        self.left = at
        self.place = None

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(home):
            return None
        frame.f_trace_opcodes = grain == "opcode"
        frame.f_trace_lines = grain == "line"
        return self.within

    def within(self, frame, event, argument):
        if event == grain:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
                raise KeyboardInterrupt
        return self.within

def transact(ctx):
    with ctx.transaction() as tx:
        tx["n"] = 1

def wedged(file, ctx):
    found = stored(file) if os.path.exists(file) else {}
    if found not in ({}, {"n": 1}):
        return f"the file holds {found}"
    try:
        assert_free(file)
    except filelock.Timeout:
        return "the lock stays held"
    try:
        ctx.incr("probe")
    except PersistentContextError as error:
        return f"the same context: {error!r}"
    try:
        SyncPersistentContext(file, lock_timeout=1, durable=False).incr("probe")
    except PersistentContextError as error:
        return f"another context: {error!r}"
    return stored(file) not in ({"probe": 2}, {"n": 1, "probe": 2}) and f"then the file holds {stored(file)}"

transact(SyncPersistentContext(path, durable=False))
counting = Strike(0)  # never strikes
sys.settrace(counting.trace)
transact(SyncPersistentContext(path + "-counted", durable=False))
sys.settrace(None)
stride = max(6, -counting.left // 30)
number, bad = 1 + stride * sixth // 6, []
while len(bad) < 3:
    file = f"{path}-{number}"
    ctx = SyncPersistentContext(file, lock_timeout=1, durable=False)
    strike = Strike(number)
    try:
        sys.settrace(strike.trace)
        transact(ctx)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    if strike.place is None:
        break
    problem = wedged(file, ctx)
    if problem:
        bad.append(f"{strike.place}: {problem}")
    number += stride
assert not bad, "\\n".join(bad)
print("ended")
"""
)


class TestAnExceptionAtEveryPlace:
    @pytest.mark.parametrize("sixth", range(6))
    @pytest.mark.parametrize("grain", ["line", "opcode"])
    def test_of_a_transaction(self, path, run, grain, sixth):
        """Whatever line or opcode of the calling thread an interrupt hits, the lock is freed and the file usable."""
        assert ["ended"] == run(AT_EVERY_PLACE, path, grain, sixth)
