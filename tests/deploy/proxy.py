"""A loopback proxy that counts and keeps the bytes that pass."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Listens on `port` and passes all on to 127.0.0.1:`target`; `up` and `down` hold what went by."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.target = 0
        self.up, self.down = bytearray(), bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def total(self) -> tuple[int, int]:
        return len(self.up), len(self.down)

    def idle(self, seconds: float) -> tuple[float, float]:
        """Bytes a second in both directions, now."""
        before = self.total()
        time.sleep(seconds)
        after = self.total()
        return (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds

    def close(self) -> None:
        self.server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                for source, sink, seen in ((near, far, self.up), (far, near, self.down)):
                    threading.Thread(target=self._pass, args=(source, sink, seen), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                seen += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
