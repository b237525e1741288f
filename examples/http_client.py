"""A cut-out through ComfyUI's HTTP API, with Python's standard library alone.

    python examples/http_client.py photo.jpg cutout.png [--server http://127.0.0.1:8188] [--model demo]
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path


def ask(url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind}), timeout=60) as answer:
        return answer.read()


def upload(server: str, path: Path) -> str:
    """Sends an image; returns the name the server gave it."""
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    return json.loads(ask(f"{server}/upload/image", body, f"multipart/form-data; boundary={edge}"))["name"]


def run(server: str, workflow: dict) -> dict:
    """Queues a workflow and waits; returns outputs by node, or ends with the node's message."""
    prompt = json.loads(ask(f"{server}/prompt", json.dumps({"prompt": workflow}).encode()))["prompt_id"]
    while True:
        entry = json.loads(ask(f"{server}/history/{prompt}")).get(prompt)
        if entry and entry["status"]["completed"]:
            return entry["outputs"]
        if entry and entry["status"]["status_str"] == "error":
            failure = dict(entry["status"]["messages"]).get("execution_error")
            sys.exit(f"{failure['node_type']}: {failure['exception_message']}" if failure else "The run was cancelled.")
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--model", default="demo", help="default: %(default)s, which comes with the pack")
    args = parser.parse_args()
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": upload(args.server, args.image)}},
        "2": {"class_type": "BiRefNetRemoveBackground", "inputs": {"image": ["1", 0], "model": args.model}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "cutout"}},
    }
    try:
        saved = run(args.server, workflow)["3"]["images"][0]
    except urllib.error.HTTPError as error:
        sys.exit(f"{args.server} refused the workflow: {error.read().decode()}")
    args.output.write_bytes(ask(f"{args.server}/view?{urllib.parse.urlencode(saved)}"))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
