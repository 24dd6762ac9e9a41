"""A TCP proxy in a thread of its own; what it does with a connection is up to its subclasses."""

import asyncio
import threading


class Proxy:
    def __init__(self, port):
        """Listens on a port of this machine."""
        self.port = port
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(ready)), daemon=True).start()
        ready.wait()

    async def serve(self, ready):
        server = await asyncio.start_server(self.connection, "127.0.0.1", self.port)
        ready.set()
        await server.serve_forever()

    async def connection(self, reader, writer):
        raise NotImplementedError
