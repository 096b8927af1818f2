"""A Stripe that costs next to nothing and takes its time, so that the worker is what is measured.

It answers every creation of a payment intent with one that succeeded, as Stripe writes it. The
sandbox keeps books, checks every parameter, and is one process of Python: at a hundred charges a
second it would be busier than the worker.

Run it with ``python -m benchmarks.quick_stripe SOCKET SECONDS``: it serves on a socket that it
inherits by its descriptor.
"""

import asyncio
import json
import socket
import sys
import uuid
from urllib.parse import parse_qs

HOST = "127.0.0.1"

_END_OF_HEADERS = b"\r\n\r\n"


def _succeeded(form: dict[str, str]) -> bytes:
    """The payment intent that a request asks for, with all that Stripe puts into one."""
    intent, charge = f"pi_{uuid.uuid4().hex}", f"ch_{uuid.uuid4().hex}"
    metadata = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in form.items()
        if name.startswith("metadata[")
    }
    amount = int(form["amount"])
    return json.dumps(
        {
            "id": intent,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": amount,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": {"allow_redirects": "never", "enabled": True},
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{intent}_secret_{uuid.uuid4().hex}",
            "confirmation_method": "automatic",
            "created": 1780000000,
            "currency": form["currency"],
            "customer": form["customer"],
            "description": form["description"],
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": charge,
            "livemode": False,
            "metadata": metadata,
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": form["payment_method"],
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {
                    "installments": None,
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                }
            },
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "succeeded",
            "transfer_data": None,
            "transfer_group": None,
        }
    ).encode()


async def serve(listening: socket.socket, seconds: float) -> None:
    """Answer until told to stop, each request so many seconds after it came."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(_END_OF_HEADERS)
                body = await reader.readexactly(_length_of(head))
                await asyncio.sleep(seconds)
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                answer = _succeeded(form)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Request-Id: req_benchmark\r\nStripe-Version: 2026-10-28\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, sock=listening)
    async with server:
        await server.serve_forever()


def _length_of(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2])))
