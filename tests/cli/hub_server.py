"""A server on this machine that speaks as much of the hub's API as a push and a download need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories as lists of commits, each a mapping from names to bytes.

    Attributes:
        commits: By repository, its commits in order: (id, files).
        downloads: Names of the files whose content was sent.
        token: What a push has to show.
    """

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.downloads: list[str] = []
        self.token = token

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit; returns its id."""
        before = self.commits.setdefault(repo, [])
        name = hashlib.sha1(f"{repo} {len(before)}".encode()).hexdigest()
        before.append((name, files))
        return name

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.commits.get(repo) or []
        for name, files in reversed(found):
            if revision in ("main", name):
                return name, files
        return None


@contextmanager
def serving(token: str) -> Iterator[Hub]:
    hub = Hub(token)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _send(self, body: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, what: str) -> None:
        self._send({"error": what}, 404, {"X-Error-Code": what, "X-Error-Message": what})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            repo, rest = "/".join(parts[2:4]), parts[4:]
            revision = rest[1] if len(rest) > 1 else "main"
            found = self.server.files(repo, revision)
            if repo not in self.server.commits:
                return self._missing("RepoNotFound")
            name, files = found or ("0" * 40, {})
            if rest[:1] == ["tree"]:
                listed = [
                    {"type": "file", "path": path, "size": len(data), "oid": name}
                    for path, data in files.items()
                ]
                return self._send(listed)
            if found is None and revision != "main":
                return self._missing("RevisionNotFound")
            siblings = [{"rfilename": path} for path in files]
            return self._send({"id": repo, "sha": name, "siblings": siblings, "private": False})
        repo, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        found = self.server.files(repo, revision)
        if found is None:
            return self._missing("RepoNotFound")
        name, files = found
        if path not in files:
            return self._missing("EntryNotFound")
        if self.command == "GET":
            self.server.downloads.append(path)
        etag = hashlib.sha1(files[path]).hexdigest()
        return self._send(files[path], 200, {"X-Repo-Commit": name, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts == ["api", "validate-yaml"]:
            return self._send({"errors": [], "warnings": []})
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._send({"error": "Invalid token"}, 401)
        if parts == ["api", "repos", "create"]:
            given = json.loads(body)
            repo = f"{given['organization']}/{given['name']}"
            known = repo in self.server.commits
            self.server.commits.setdefault(repo, [])
            answer = {"url": f"{self.server.url}/{repo}"}
            return self._send(answer, 409 if known else 200)
        repo, what = "/".join(parts[2:4]), parts[4]
        if what == "preupload":
            files = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return self._send({"files": [{"path": f["path"], **mode} for f in files]})
        assert what == "commit"
        before = self.server.files(repo, "main")
        new = dict(before[1]) if before else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                new = {path: data for path, data in new.items() if path != value["path"]}
        name = self.server.commit(repo, new)
        url = f"{self.server.url}/{repo}/commit/{name}"
        return self._send({"success": True, "commitOid": name, "commitUrl": url})
