"""Signals that end a program, heard at once: also while a library call holds the thread that Python's handlers run in."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


@contextlib.contextmanager
def on_signals(first: Callable[[], None], again: Callable[[], None], interrupt: bool = False) -> Iterator[None]:
    """While inside, the first of `NAMES` calls `first`, every further one `again`; other threads than the main one hear none.

    Both are called in a thread of their own, `first` perhaps in the main one. interrupt: raise KeyboardInterrupt in the
    main thread too, as soon as that runs Python. Signals that were ignored (nohup, a background job) stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    claim = threading.Lock()  # taken once and never waited for: a handler may interrupt another one

    def once() -> None:
        if claim.acquire(blocking=False):
            first()

    def listen() -> None:
        count = 0
        while bytes_heard := ears.recv(1):
            if bytes_heard == b"\0":
                return
            if bytes_heard[0] in numbers:
                count += 1
                (once if count == 1 else again)()

    def stop(number: int, frame: object) -> None:
        once()
        if interrupt:
            raise KeyboardInterrupt

    wanted = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    numbers = [int(number) for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    woken = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):
            mouth.send(b"\0")
        listener.join()
        ears.close()
        mouth.close()
