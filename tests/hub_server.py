"""A server that speaks the Hub's HTTP interface, as far as uploads by commit and downloads go."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


class HubServer(ThreadingHTTPServer):
    """Repositories by name: commits by revision, files by commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}  # by revision, and by the commits' names
        self.commits: dict[tuple[str, str], str] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.large: set[str] = set()  # names of files that were uploaded as large ones
        self.lie: dict[str, bytes] = {}  # content that is sent for a file in place of its own
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data: Any, code: int = 200) -> None:
        self._answer(code, json.dumps(data).encode(), Content_Type="application/json")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        files = self.server.repositories.get(match[1], {}).get(match[2]) if match else None
        if match is None or files is None:
            self._answer(404, b"", X_Error_Code="RepoNotFound" if match and match[1] not in self.server.repositories
                         else "RevisionNotFound", X_Error_Message="not there")  # fmt: skip
            return
        if match[3] not in files:
            self._answer(404, b"", X_Error_Code="EntryNotFound", X_Error_Message="not there")
            return
        content, large = files[match[3]], match[3] in self.server.large
        digest = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        content = self.server.lie.get(match[3], content)
        commit = self.server.commits.get((match[1], match[2]), match[2])
        self._answer(200, content, ETag=f'"{digest}"', X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(content)),
                     X_Repo_Commit=commit)  # fmt: skip

    def do_PUT(self) -> None:
        content = self._body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, b"")

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self._body()
        if self.path == "/verify":
            self._json({})
            return
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self._json({"error": "Invalid username or password."}, 401)
            return
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            code = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, {"main": {}})
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.server.private.add(name)
            self._json({"url": f"{self.server.address}/{name}", "name": name, "id": name}, code)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self.path):
            files = [{"path": one["path"], "shouldIgnore": False,
                      "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".jpg")) else "regular"}
                     for one in json.loads(body)["files"]]  # fmt: skip
            self._json({"files": files})
        elif re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path):
            address = self.server.address
            actions = [
                {"upload": {"href": f"{address}/lfs/{one['oid']}"}, "verify": {"href": f"{address}/verify"}}
                for one in json.loads(body)["objects"]
            ]
            objects = [{**one, "authenticated": True, "actions": action}
                       for one, action in zip(json.loads(body)["objects"], actions, strict=True)]  # fmt: skip
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self.path):
            self._commit(match[1], match[2], [json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": f"no route {self.path}"}, 404)

    def _commit(self, name: str, revision: str, lines: list[dict[str, Any]]) -> None:
        repository = self.server.repositories[name]
        files = dict(repository.get(revision, {}))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
                self.server.large.add(value["path"])
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository[revision] = repository[commit] = files
        self.server.commits[name, revision] = commit
        url = f"{self.server.address}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


@contextmanager
def local_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    """A server that huggingface_hub takes for the Hub, with a cache of its own."""
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield server


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
