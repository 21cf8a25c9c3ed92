"""h3.py URL [COUNT] [PAUSE]: requests over one HTTP/3 connection; the server's
certificate is not checked.  Prints "STATUS BODY" for each, or why there is
none.  PAUSE: seconds between them."""

import asyncio
import ssl
import sys
from urllib.parse import urlparse

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for answer in self.answers.values():
                if not answer["done"].done():
                    answer["done"].set_result("closed: %s" % event.reason_phrase)
        for e in self.http.handle_event(event):
            answer = self.answers.get(e.stream_id)
            if answer is None:
                continue
            if isinstance(e, HeadersReceived):
                answer["status"] = dict(e.headers)[b":status"].decode()
            elif isinstance(e, DataReceived):
                answer["body"] += e.data
            if e.stream_ended and not answer["done"].done():
                answer["done"].set_result(
                    answer["status"] + " " + answer["body"].decode().strip())

    async def get(self, url):
        stream = self._quic.get_next_available_stream_id()
        done = asyncio.get_running_loop().create_future()
        self.answers[stream] = {"status": "", "body": b"", "done": done}
        self.http.send_headers(stream, [
            (b":method", b"GET"), (b":scheme", b"https"),
            (b":authority", url.netloc.encode()), (b":path", url.path.encode()),
        ], end_stream=True)
        self.transmit()
        return await asyncio.wait_for(done, 5)


async def main(url, count, pause):
    conf = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN,
                             verify_mode=ssl.CERT_NONE, idle_timeout=10,
                             max_datagram_size=1200, server_name="web")
    async with connect(url.hostname, url.port, configuration=conf,
                       create_protocol=Client) as client:
        for i in range(count):
            if i:
                await asyncio.sleep(pause)
            print(await client.get(url), flush=True)


try:
    asyncio.run(main(urlparse(sys.argv[1]), int((sys.argv[2:] + ["1"])[0]),
                     float((sys.argv[3:] + ["0"])[0] if len(sys.argv) > 3 else 0)))
except (ConnectionError, asyncio.TimeoutError) as e:
    print("none: %r" % e)
    sys.exit(1)
