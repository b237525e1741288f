"""A cut-out through ComfyUI's HTTP API, with Python's standard library alone.

    python examples/http_client.py photo.jpg cutout.png [--server http://127.0.0.1:8188] [--model demo]
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

SECONDS_UNKNOWN = 5.0  # a run that is neither queued nor finished for so long is lost, as after a restart


class Failure(Exception):
    """What ended the run, as a sentence."""


def request(url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    """The body of a response."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind}), timeout=60) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        reason = error.read(10_000).decode(errors="replace")
        raise Failure(f"{url} was refused ({error.code}): {reason or error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Failure(f"no ComfyUI answers at {url} ({reason}). Start it, or give its address by --server.") from error


def request_json(url: str, body: bytes | None = None, kind: str = "application/json") -> dict:
    """The JSON object of a response."""
    response = request(url, body, kind)
    try:
        found = json.loads(response)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(f"{url} gave {response[:80]!r}, expected a JSON object. Is it ComfyUI?")
    return found


def upload(server: str, path: Path) -> str:
    """Sends an image; returns the name the server gave it."""
    try:
        image = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror}).") from error
    # Escaped as browsers do: a name may not end its quotes or add lines to the header.
    name = path.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    body = head.encode(errors="replace") + image + f"\r\n--{boundary}--\r\n".encode()
    stored = request_json(f"{server}/upload/image", body, f"multipart/form-data; boundary={boundary}")
    if not isinstance(stored.get("name"), str):
        raise Failure(f"{server} did not store the image: {stored}")
    subfolder = stored.get("subfolder") or ""
    return f"{subfolder}/{stored['name']}" if subfolder else stored["name"]


def run(server: str, workflow: dict) -> dict:
    """Queues a workflow and waits; returns its outputs by node."""
    prompt = request_json(f"{server}/prompt", json.dumps({"prompt": workflow}).encode()).get("prompt_id")
    known = time.monotonic()
    while True:
        entry = request_json(f"{server}/history/{prompt}").get(prompt)
        if isinstance(entry, dict):
            status = entry.get("status") or {}
            if status.get("status_str") == "error":
                raise Failure(reason_of(status))
            return entry.get("outputs") or {}  # the history has finished runs only
        if is_queued(server, prompt):
            known = time.monotonic()
        elif time.monotonic() - known > SECONDS_UNKNOWN:
            raise Failure(f"{server} no longer knows the run: was it restarted, or its history cleared?")
        time.sleep(0.5)


def is_queued(server: str, prompt: str) -> bool:
    """Whether a run waits or is in progress."""
    queue = request_json(f"{server}/queue")
    entries = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
    return any(prompt in entry for entry in entries)


def reason_of(status: dict) -> str:
    """The node's message, of a run that ended with an error."""
    failure = dict(status.get("messages") or []).get("execution_error")
    return f"{failure['node_type']}: {failure['exception_message']}" if failure else "The run was cancelled."


def fetch_first_image(server: str, outputs: dict) -> bytes:
    """The first image that the workflow saved."""
    images = (outputs.get("3") or {}).get("images") or []
    if not images:
        raise Failure("the run ended without an image.")
    return request(f"{server}/view?{urllib.parse.urlencode(images[0])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("output", type=Path, help="a .png file; replaced where it is there")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--model", default="demo", help="default: %(default)s, which comes with the pack")
    args = parser.parse_args()
    server = args.server.rstrip("/")
    try:
        if args.output.exists() and args.image.exists() and os.path.samefile(args.image, args.output):
            raise Failure(f"{args.output} is the image itself. Give the cut-out another name.")
        if args.output.is_dir() or not args.output.parent.is_dir():
            raise Failure(f"{args.output} cannot be written: expected the name of a file in a folder that is there.")
        # A run like an earlier one is not run again, and without outputs: each has a prefix of its own.
        prefix = f"cutout_{uuid.uuid4().hex[:8]}"
        workflow = {
            "1": {"class_type": "LoadImage", "inputs": {"image": upload(server, args.image)}},
            "2": {"class_type": "BiRefNetRemoveBackground", "inputs": {"image": ["1", 0], "model": args.model}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
        }
        cutout = fetch_first_image(server, run(server, workflow))
        args.output.write_bytes(cutout)
    except Failure as error:
        sys.exit(f"error: {printable(str(error))}")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        sys.exit(f"error: {server} gave something else than ComfyUI does ({printable(str(error))}).")
    except OSError as error:
        sys.exit(f"error: {printable(str(args.output))} cannot be written ({error.strerror}).")
    print(f"wrote {printable(str(args.output))}")


def printable(text: str) -> str:
    """A message without characters that move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


if __name__ == "__main__":
    main()
