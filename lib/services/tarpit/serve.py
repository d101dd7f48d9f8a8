"""An address that answers nothing: connecting to it hangs, as it does where packets to nowhere are dropped.

A listener whose queue is full: Linux drops what asks for more, and says nothing.
"""

import json
import signal
import socket


def full():
    """(the listener, the connections that fill its queue)"""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    filling = []
    while len(filling) < 64:  # on Linux, one fills a queue of none
        try:
            filling.append(socket.create_connection(listener.getsockname(), timeout=0.1))
        except TimeoutError:
            return listener, filling
    raise SystemExit("a listener whose queue is full takes connections on this system")


def main():
    listener, filling = full()
    print(json.dumps({"ports": {"": listener.getsockname()[1]}}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
