# SPDX-License-Identifier: Apache-2.0
"""A site behind its gate, without a network: Flower's own loop and stores; the server is a list."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate import NodeStateFactory

from client.approvals import approve
from client.audit import AuditLog
from client.bundles import digest_of, read_bundle
from client.chain import Entry
from client.guard.gate import Gate
from client.kit import Kit, read_kit
from client.wire import parcel_of, reply
from pasta_model.config import Scalar, Settings
from pasta_model.exchange.contents import Parcel

NODE, RUN, SERIES = 7, 11, 5
ORIGINALS = {name: getattr(loop, name) for name in ("_pull_and_store_message", "_push_messages")}
POLICY = {
    "aggregations": ["fedavg", "median"],
    "min-subjects": 1,
    "max-rounds": 3,
    "privacy-required": False,
    "max-epsilon": 8.0,
    "max-delta": 0.0001,
    "metrics": ["train-loss", "valid-mae", "seconds"],
    "metrics-min-subjects": 1,
}
App = Callable[[Message], Message]


def write_kit(folder: Path, store: Path, *, site: str = "A", **policy: object) -> Kit:
    """Write a kit without keys, and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "site": {"name": site, "consortium": "north-sea", "store": str(store)},
        "server": {"address": "localhost:9443"},
        "keys": {name: f"keys/{name}" for name in ("authority", "certificate", "certificate-key", "node")},
        "guard": {
            "policy": "policy.toml",
            "approved": "approved.toml",
            "audit": "audit.jsonl",
            "quarantine": "quarantine",
        },
    }
    (folder / "site.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    write_policy(folder, **policy)
    return read_kit(folder, files=False)


def write_keys(kit: Kit) -> None:
    """Make an authority, a certificate of it and a node key, and lay them where the kit looks."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, day = datetime.now(UTC), timedelta(days=1)
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kit.site.consortium)])
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kit.site.name)])

    def signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        made = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now, now + day
        )
        constraint = x509.BasicConstraints(ca=authority, path_length=None)
        done = made.add_extension(constraint, critical=True).sign(keys[0], hashes.SHA256())
        return done.public_bytes(serialization.Encoding.PEM)

    def private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    files = {
        kit.keys.authority: signed(issuer, keys[0], authority=True),
        kit.keys.certificate: signed(own, keys[1], authority=False),
        kit.keys.certificate_key: private(keys[1], serialization.PrivateFormat.PKCS8),
        kit.keys.node: private(keys[2], serialization.PrivateFormat.OpenSSH),
    }
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)


def write_policy(folder: Path, **changes: object) -> None:
    """Write the policy, with some of it changed; `None` leaves a line out."""
    table = POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    kept = {name: value for name, value in table.items() if value is not None}
    (folder / "policy.toml").write_text(tomli_w.dumps({"policy": kept}), encoding="utf-8")


def project_of(settings: Settings, **app: object) -> bytes:
    """A pyproject.toml whose default settings are these."""
    config: dict[str, dict[str, Scalar]] = {}
    for name, value in settings.flat().items():
        section, _, key = name.partition(".")
        config.setdefault(section, {})[key] = value
    flower = {
        "publisher": "pasta",
        "components": {"serverapp": "server.server_app:app", "clientapp": "client.client_app:app"},
        "config": config,
        **app,
    }
    project = {"name": "pasta-federated", "version": "0.1.0", "description": "t", "license": "Apache-2.0"}
    return tomli_w.dumps({"project": project, "tool": {"flwr": {"app": flower}}}).encode()


def build(settings: Settings, **files: bytes) -> bytes:
    """Build a bundle as `flwr build` does."""
    code = {f"client/{name}.py": content for name, content in files.items()}
    return build_fab_from_files({"pyproject.toml": project_of(settings), "client/a.py": b"1", **code})[0]


def zipped(members: dict[str, bytes], **attributes: int) -> bytes:
    """A zip of our own making, as somebody hostile would make one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes.get("external_attr", 0)
            archive.writestr(info, content)
    return buffer.getvalue()


@dataclass
class Sent:
    """All that reached the server with one reply."""

    message: Message
    runtime: float
    contents: dict[str, bytes]

    @property
    def wire(self) -> bytes:
        """Every byte that left."""
        return repr(self.message).encode() + b"".join(self.contents.values())

    @property
    def parcel(self) -> Parcel:
        """What the server unpacks."""
        identity = self.message.metadata.message_id
        whole = inflate_object_from_contents(identity, dict(self.contents))
        assert isinstance(whole, Message)
        return parcel_of(whole)


@dataclass
class Node:
    """A SuperNode whose server is this object, and whose ClientApp is a function."""

    kit: Kit
    settings: Settings
    bundle: bytes
    gate: Gate
    override: dict[str, Scalar] = field(default_factory=dict)
    run_changes: dict[str, Any] = field(default_factory=dict)
    fab_hash: str = ""
    sent: list[Sent] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    reached: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 1
        self.objects = ObjectStoreFactory()
        self.state = NodeStateFactory(self.objects).state()
        self.state.set_node_id(NODE)
        self.store = self.objects.store()

    @property
    def log(self) -> list[Entry]:
        """The audit log."""
        assert self.gate.log.verify().holds
        return list(self.gate.log.entries())

    def approve(self) -> None:
        """Let the bundle run."""
        approve(self.kit.guard.approved, read_bundle(self.bundle))

    def restart(self) -> None:
        """Start the process again: Flower forgets, the site's disk does not."""
        self.__post_init__()
        self.gate = Gate(self.kit, self.gate.log)

    def run_record(self) -> Run:
        """What the server says of the run."""
        run = Run.create_empty(RUN)
        run.fab_id, run.fab_version, run.series_id = "pasta/pasta-federated", "0.1.0", SERIES
        run.fab_hash, run.override_config = self.fab_hash or digest_of(self.bundle), self.override
        for name, value in self.run_changes.items():
            setattr(run, name, value)
        return run

    def ask(self, kind: str, app: App, parcel: Parcel | None = None, **changes: object) -> Sent:
        """Send a request through the gate, let `app` answer it, and return what leaves."""
        self.take_in(kind, parcel, **changes)
        waiting = self.state.get_messages_legacy(run_ids=[RUN], is_reply=False, limit=1)
        for request in waiting:
            self.reached.append(request)
            self.state.record_message_processing_start(request.metadata.message_id)
            self.store.delete(request.metadata.message_id)  # confirmed
            self.hand_back(app(request))
        return self.let_out()

    def let_out(self) -> Sent:
        """Let the gate send what waits, and return the last that left."""
        self.gate.push(
            ORIGINALS["_push_messages"],
            state=self.state,
            object_store=self.store,
            send=self._send,
            push_object=self._push_object,
        )
        return self.sent[-1]

    def take_in(self, kind: str, parcel: Parcel | None = None, **changes: object) -> int | None:
        """Let the gate take in a request."""
        content = RecordDict({"values": ConfigRecord({"site": "A"})})
        request = Message(content, NODE, kind, group_id=str(changes.pop("group_id", "3")))
        if parcel is not None:
            request = Message(reply(parcel, request).content, NODE, kind, group_id="3")
        for name, value in changes.items():
            request.metadata.__dict__[f"_{name}"] = value
        request.metadata.__dict__["_message_id"] = request.object_id
        contents = {identity: part.deflate() for identity, part in get_all_nested_objects(request).items()}
        bare = remove_content_from_message(request)
        fab = Fab(self.fab_hash or digest_of(self.bundle), self.bundle, {})

        def get_fab(name: str, _: int) -> Fab:
            self.fetched.append(name)
            return fab

        return self.gate.pull(
            ORIGINALS["_pull_and_store_message"],
            state=self.state,
            object_store=self.store,
            node_config=self.kit.node_config,
            receive=lambda: (bare, get_object_tree(request)),
            get_run=lambda _: self.run_record(),
            get_fab=get_fab,
            pull_object=lambda _, identity: contents[identity],
            confirm_message_received=lambda *_: None,
            trusted_entities=None,
        )

    def hand_back(self, answer: Message) -> None:
        """Put a reply into the node, as `flwr-clientapp` does."""
        answer.metadata.__dict__["_message_id"] = answer.object_id
        self.state.record_message_processing_end(answer.metadata.reply_to_message_id)
        session = self.state.start_session(RUN)
        bare = remove_content_from_message(answer)
        self.state.store_message_and_object_tree(bare, get_object_tree(answer), session)
        for identity, part in get_all_nested_objects(answer).items():
            self.state.store_object(RUN, session, identity, part.deflate())

    def _send(self, message: Message, tree: Any, runtime: float) -> tuple[set[str], str]:
        self.sent.append(Sent(message, runtime, {}))
        ids, waiting = set(), [tree]
        while waiting:
            part = waiting.pop()
            ids.add(part.object_id)
            waiting += part.children
        return ids, "session"

    def _push_object(self, run_id: int, session: str, identity: str, content: bytes) -> None:
        assert (run_id, session) == (RUN, "session")
        self.sent[-1].contents[identity] = content


def answers(parcel: Parcel) -> App:
    """An app that answers with this parcel."""
    return lambda request: reply(parcel, request)


def fails(code: int, text: str) -> App:
    """An app that answers with an error."""
    return lambda request: Message(Error(code, text), reply_to=request)


def open_log(kit: Kit) -> AuditLog:
    """The kit's log."""
    return AuditLog(kit.guard.audit, site=kit.site.name, consortium=kit.site.consortium)
