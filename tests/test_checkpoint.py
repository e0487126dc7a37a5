"""Checkpoints and replay segments: exact, crash-safe, and closed to what is damaged or forged."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import struct
import zlib

import pytest
import safetensors.torch
import torch

from rlgan.errors import RlganError, UsageError
from rlgan.store import checkpoint, durable, manifest, segments, tree

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
DTYPES += [torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def bits(tensor):
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def random_bits(dtype, *shape):
    """Tensors of every bit pattern: NaN payloads, infinities and subnormals are among them."""
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (*shape[:-1], shape[-1] * size), dtype=torch.uint8)
    return raw.view(dtype)


def small(value=1.0):
    return {"agent": {"w": torch.full((3, 2), value), "n": torch.tensor(7)}, "step": int(value)}


def save(root, step, keep=2, refs=(), **kwargs):
    return checkpoint.save(root, step, small(float(step)), {"agent": "dqn"}, list(refs), keep, **kwargs)


def names(root):
    return sorted(path.name for path in root.iterdir() if path.name != "segments")


def seal(path, change):
    """Change a manifest and give it a fitting hash again, as a forger would."""
    body = json.loads((path / "manifest.json").read_text())
    del body["sha256"]
    change(body)
    (path / "manifest.json").write_bytes(manifest.sealed(body))


# --- exact ---


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    state = {
        str(d): {"full": random_bits(d, 5, 7), "scalar": random_bits(d, 1)[0], "empty": random_bits(d, 1)[:0]}
        for d in DTYPES
    }
    nan = torch.tensor([0x7FC00001, -4194303, 0x7F800001], dtype=torch.int32).view(torch.float32)
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state["odd"] = {
        "nan": nan,
        "channels_last": images,
        "column": torch.randn(4, 3)[:, 1],
        "grad": torch.ones(2, requires_grad=True),
    }
    checkpoint.save(tmp_path, 1, state, {}, [], 1)
    loaded = checkpoint.newest(tmp_path).tree
    assert list(loaded) == list(state)
    for group, tensors in state.items():
        for name, tensor in tensors.items():
            back = loaded[group][name]
            assert (back.dtype, back.shape, bits(back)) == (tensor.dtype, tensor.shape, bits(tensor)), (group, name)
    assert state["odd"]["nan"].isnan().all()


def test_safetensors_reads_what_is_written(tmp_path):
    path = save(tmp_path, 1)
    found = safetensors.torch.load_file(path / "tensors.safetensors")
    assert {k: v.tolist() for k, v in found.items()} == {"agent/w": [[1.0, 1.0]] * 3, "agent/n": 7}


def test_everything_beside_tensors_comes_back(tmp_path):
    state = {
        "empty": {},
        "list": [1, [2.5, None], {"a": torch.tensor(1)}],
        "tuple": (0.9, 0.999),
        "numbers": {"big": 2**127 - 1, "tiny": 5e-324, "zero": -0.0, "inf": math.inf, "minus": -math.inf, "yes": True},
        "text": "§ \u2028 $tensor",
        "optimiser": {"state": {0: {"step": torch.tensor(3.0)}, -1: {}}},
    }
    info = {"config": {"agent": {"lr": 1e-4}}, "record_length": 123, "best": -math.inf}
    checkpoint.save(tmp_path, 5, state, info, [], 1)
    found = checkpoint.load(tmp_path / "step_5")
    assert found.info == info and found.step == 5 and found.segments == []
    assert repr(found.tree) == repr(state)


def test_a_torch_optimiser_comes_back(tmp_path):
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint.save(tmp_path, 1, {"opt": optimiser.state_dict()}, {}, [], 1)
    assert repr(checkpoint.newest(tmp_path).tree["opt"]) == repr(optimiser.state_dict())


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"a": {"b": object()}}, "'a/b' is a object; a state holds tensors"),
        ({"a": {1.5: 1}}, "'a' has the key 1.5"),
        ({"a/b": 1}, "'' has the key 'a/b'"),
        ({"$tensor": "x"}, "'' has the key '$tensor'"),
        ({0: torch.ones(1), "0": torch.ones(1)}, "two tensors of the state are named '0'"),
        ({"a": torch.ones(2).to_sparse()}, "'a' is a torch.sparse_coo tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.complex64; only dense real tensors"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, state, sentence):
    with pytest.raises(TypeError, match=re.escape(sentence)):
        checkpoint.save(tmp_path, 1, state, {}, [], 1)


def test_too_deep_a_state_is_refused():
    state = deep = {}
    for _ in range(tree.MAX_DEPTH + 1):
        deep["x"] = {}
        deep = deep["x"]
    with pytest.raises(TypeError, match="deeper than 64 levels"):
        tree.encode(state, {})


# --- keeping ---


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, best=step == 10)
    assert names(tmp_path) == ["step_10", "step_20", "step_30"]
    save(tmp_path, 40)
    assert names(tmp_path) == ["step_10", "step_30", "step_40"]
    save(tmp_path, 100, best=True)
    assert names(tmp_path) == ["step_100", "step_40"]
    assert checkpoint.newest(tmp_path).tree["step"] == 100


def test_the_checkpoint_just_written_is_never_pruned(tmp_path):
    save(tmp_path, 50)
    save(tmp_path, 60)
    assert save(tmp_path, 20, keep=1) == tmp_path / "step_20"
    assert names(tmp_path) == ["step_20", "step_60"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 10)
    checkpoint.save(tmp_path, 10, {"x": 2}, {}, [], 2)
    assert names(tmp_path) == ["step_10"]
    assert checkpoint.newest(tmp_path).tree == {"x": 2}


def test_segments_live_as_long_as_a_checkpoint_lists_them(tmp_path):
    refs = [checkpoint.write_segment(tmp_path, 4 * i, {"r": torch.full((4,), i)}) for i in range(3)]
    save(tmp_path, 1, keep=1, refs=refs[:2], best=True)
    save(tmp_path, 2, keep=1, refs=refs[1:2])
    stored = {path.name for path in (tmp_path / "segments").iterdir()}
    assert stored == {refs[0]["file"], refs[1]["file"]}
    refs.append(checkpoint.write_segment(tmp_path, 12, {"r": torch.zeros(4)}))
    save(tmp_path, 3, keep=1, refs=refs[3:], best=True)
    assert {path.name for path in (tmp_path / "segments").iterdir()} == {refs[3]["file"]}
    assert checkpoint.newest(tmp_path).segments == refs[3:]


def test_what_no_manifest_lists_is_discarded(tmp_path):
    kept, lost = (checkpoint.write_segment(tmp_path, i, {"r": torch.full((2,), i)}) for i in range(2))
    save(tmp_path, 1, refs=[kept])
    lost = checkpoint.write_segment(tmp_path, 9, {"r": torch.ones(2)})
    (tmp_path / "segments" / "tmp-77").write_bytes(b"half")
    (tmp_path / "ckpt.tmp-77").mkdir()
    (tmp_path / "ckpt.tmp-77" / "state.json").write_bytes(b"{")
    save(tmp_path, 2, refs=[kept])
    shutil.copytree(tmp_path / "step_2", tmp_path / "step_9")
    checkpoint.discard_unlisted(tmp_path, after=2)
    assert names(tmp_path) == ["step_1", "step_2"]
    assert [path.name for path in (tmp_path / "segments").iterdir()] == [kept["file"]]
    assert not (tmp_path / "segments" / lost["file"]).exists()
    assert torch.equal(checkpoint.read_segment(tmp_path, kept)["r"], torch.tensor([0, 0]))


# --- crashes and full disks ---


class Crash(BaseException):
    """Not an OSError: nothing in the writer may clean up after it, as nothing does after a power cut."""


class Calls:
    """Stands for the module os: notes every call that changes the disk, and spoils one of them."""

    SPOILT = ("open", "write", "fsync", "replace", "mkdir")

    def __init__(self, spoil=None, how=None):
        self.spoil, self.how, self.log, self.open_files = spoil, how, [], {}

    def __getattr__(self, name):
        real = getattr(os, name)
        return (lambda *args: self.call(name, real, *args)) if name in self.SPOILT else real

    def call(self, name, real, *args):
        number = len(self.log)
        target = self.open_files.get(args[0], args[0])
        self.log.append((name, os.path.basename(os.fspath(target))))
        if number == self.spoil:
            if self.how == "crash":
                raise Crash
            if self.how != "short":
                raise OSError(self.how, os.strerror(self.how))
            if name == "write":
                return real(args[0], args[1][: len(args[1]) // 2])
        result = real(*args)
        if name == "open":
            self.open_files[result] = os.fspath(args[0])
        return result


def spoil(monkeypatch, calls):
    for module in (durable, checkpoint, segments):
        monkeypatch.setattr(module, "os", calls)


def step_two(root):
    ref = checkpoint.write_segment(root, 4, {"r": torch.arange(4)})
    return checkpoint.save(root, 2, small(2.0), {"n": 2}, [ref], 1)


def count_calls(root, monkeypatch):
    calls = Calls()
    with monkeypatch.context() as patch:
        spoil(patch, calls)
        step_two(root)
    return calls.log


def test_the_manifest_is_last_and_everything_is_synced_before_it_is_named(tmp_path, monkeypatch):
    log = count_calls(tmp_path, monkeypatch)
    temporary = f"ckpt.tmp-{os.getpid()}"
    order = [entry for entry in log if entry[0] in ("fsync", "replace")]
    assert order == [
        ("fsync", f"tmp-{os.getpid()}"),
        ("replace", f"tmp-{os.getpid()}"),
        ("fsync", "segments"),
        ("fsync", tmp_path.name),
        ("fsync", "tensors.safetensors"),
        ("fsync", "state.json"),
        ("fsync", "manifest.json"),
        ("fsync", temporary),
        ("replace", temporary),
        ("fsync", tmp_path.name),
    ]
    assert log.index(("open", "manifest.json")) > log.index(("fsync", "state.json"))


@pytest.mark.parametrize("how", [errno.ENOSPC, errno.EIO, "crash", "short"])
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_a_fault_at_any_call_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch, how, again):
    old = {"agent/w": bits(small(1.0)["agent"]["w"]), "n": 1}

    def prepare(root):
        ref = checkpoint.write_segment(root, 0, {"r": torch.zeros(4)})
        checkpoint.save(root, 2 if again else 1, small(1.0), {"n": 1}, [ref], 1)

    (tmp_path / "count").mkdir()
    prepare(tmp_path / "count")
    log = count_calls(tmp_path / "count", monkeypatch)
    assert len(log) > 20
    survived = []
    for number in (i for i, (name, _) in enumerate(log) if how != "short" or name == "write"):
        root = tmp_path / str(number)
        prepare(root)
        failed = None
        with monkeypatch.context() as patch:
            spoil(patch, Calls(number, how))
            try:
                step_two(root)
            except (Crash, RlganError) as error:
                failed = error
        if isinstance(failed, RlganError):
            assert failed.exit_code == 1
            assert os.strerror(how) in str(failed)
            assert not list(root.glob("ckpt.tmp-*"))
        found = checkpoint.newest(root)
        survived.append(found.info["n"])
        assert bits(found.tree["agent"]["w"]) == bits(small(float(found.info["n"]))["agent"]["w"])
        assert len(checkpoint.read_segment(root, found.segments[0])["r"]) == 4
        if found.info["n"] == 1:
            assert failed is not None and bits(found.tree["agent"]["w"]) == old["agent/w"]
        checkpoint.discard_unlisted(root, after=found.step)
        listed = [ref["file"] for name in names(root) for ref in checkpoint.load(root / name).segments]
        assert sorted(listed) == sorted(path.name for path in (root / "segments").iterdir())
        assert checkpoint.newest(root).info == found.info
    # Short writes are completed; a fault before the rename keeps the old one, a fault after it the new one.
    assert survived == sorted(survived)
    assert set(survived) == ({2} if how == "short" else {1, 2})


def test_a_disk_without_room_is_noticed_before_a_byte_is_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    usage = shutil._ntuple_diskusage(100, 90, 10)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    sentence = f"the checkpoint of step 2 could not be saved in {tmp_path} (No space left on device: 0 MB are needed"
    with pytest.raises(RlganError, match=re.escape(sentence)):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step_1"]


def test_old_ones_that_cannot_be_removed_are_only_a_warning(tmp_path, monkeypatch, capsys):
    save(tmp_path, 1, keep=1)
    monkeypatch.setattr(
        checkpoint.shutil,
        "rmtree",
        lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")) if not k else None,
    )
    save(tmp_path, 2, keep=1)
    assert f"warning: old checkpoints in {tmp_path} could not be removed" in capsys.readouterr().err
    assert checkpoint.newest(tmp_path).step == 2


def test_a_listed_segment_must_be_there(tmp_path):
    ref = checkpoint.write_segment(tmp_path, 0, {"r": torch.zeros(1)})
    (tmp_path / "segments" / ref["file"]).unlink()
    with pytest.raises(RlganError, match=r"could not be saved .*No such file"):
        save(tmp_path, 1, refs=[ref])


# --- damaged and forged ---


def truncate(path):
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def flip(name):
    def change(path):
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)

    return change


def link(path):
    (path / "state.json").rename(path / "elsewhere.json")
    (path / "state.json").symlink_to("elsewhere.json")


def pipe(path):
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")


def forged(**changes):
    return lambda path: seal(path, lambda body: body.update(changes))


def forged_size(name, size):
    return lambda path: seal(path, lambda body: body["files"][name].update(bytes=size))


def forged_content(name, data):
    def change(path):
        (path / name).write_bytes(data)
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        seal(path, lambda body: body["files"].update({name: entry}))

    return change


def raw(text):
    return lambda path: (path / "manifest.json").write_text(text)


ENTRY = {"bytes": 1, "sha256": "0" * 64}
REF = {"file": f"rows_{0:012d}_{'0' * 64}.z", "sha256": "0" * 64, "first": 0, "rows": 1, "bytes": 9}
HEADER = json.dumps({"agent/w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, "is truncated: tensors.safetensors has"),
        (flip("tensors.safetensors"), "is damaged or was tampered with: tensors.safetensors does not match its sha256"),
        (flip("state.json"), "is damaged or was tampered with: state.json does not match its sha256"),
        (lambda p: (p / "state.json").unlink(), "cannot be read: state.json: No such file"),
        (lambda p: (p / "manifest.json").unlink(), "is not a checkpoint: it has no manifest.json"),
        (raw('{"kind": "rlg'), "is truncated or damaged: its manifest.json is not JSON"),
        (raw("[" * 100_000), "is truncated or damaged: its manifest.json is not JSON"),
        (raw('"hello"'), "is not a checkpoint: its manifest.json was not written by rlgan"),
        (
            raw('{"kind": "rlgan checkpoint", "format": 2}'),
            "has format 2 and this rlgan reads up to 1: upgrade it with `pip install -U rlgan`",
        ),
        (
            raw('{"kind": "rlgan checkpoint", "format": 1, "step": 3}'),
            "its manifest.json does not match its own sha256",
        ),
        (link, "is refused: state.json is a symbolic link"),
        (pipe, "is refused: state.json is not a regular file"),
        (forged(files={"../../etc/passwd": ENTRY}), "must list tensors.safetensors and state.json, and nothing else"),
        (forged(files={"tensors.safetensors": ENTRY, "state.json": 3}), "its manifest has no sha256 of state.json"),
        (forged_size("tensors.safetensors", 1 << 60), "says that tensors.safetensors has 1152921504606846976 bytes"),
        (forged_size("state.json", -1), "its manifest says that state.json has -1 bytes"),
        (forged_size("state.json", True), "its manifest says that state.json has True bytes"),
        (forged(step="x"), "its manifest lacks the step"),
        (forged(segments=[{**REF, "file": "../../x"}]), "lists a replay segment with a bad name"),
        (forged(segments=[{**REF, "bytes": 1 << 60}]), "lists a replay segment with a bad name, size or hash"),
        (forged(segments=[REF]), "the replay segment rows_000000000000… in"),
        (
            forged_content("state.json", b'{"tree": ' + b"[" * 100_000),
            "is refused: its content is not what rlgan writes",
        ),
        (forged_content("state.json", b"{}"), "is refused: its content is not what rlgan writes"),
        (
            forged_content("state.json", b'{"tree": {"a": {"$tensor": "b"}}}'),
            "its content is not what rlgan writes ('b')",
        ),
        (forged_content("state.json", b'{"tree": {}}'), "tensors that the state does not name: ['agent/n', 'agent/w']"),
        (forged_content("tensors.safetensors", b"\xff" * 16), "is refused: its content is not what rlgan writes"),
        (
            forged_content("tensors.safetensors", struct.pack("<Q", len(HEADER)) + HEADER),
            "its content is not what rlgan",
        ),
    ],
)
def test_a_damaged_or_forged_checkpoint_is_refused(tmp_path, damage, sentence, capsys):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    damage(path)
    with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) or "replay segment" in str(caught.value)
    assert checkpoint.newest(tmp_path).tree["step"] == 1
    error = capsys.readouterr().err
    assert sentence in error and error.endswith("; falling back to step_1\n")


def test_a_huge_manifest_is_not_read(tmp_path, monkeypatch):
    path = save(tmp_path, 1)
    monkeypatch.setattr(manifest, "MAX_JSON", 100)
    with pytest.raises(UsageError, match=r"its manifest\.json is larger than 100 bytes"):
        checkpoint.load(path)


def test_a_link_to_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "latest").symlink_to(save(tmp_path, 1))
    with pytest.raises(UsageError, match="latest is refused: it is a symbolic link; name the directory itself"):
        checkpoint.load(tmp_path / "latest")


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"there is no checkpoint in .*: the run ended before its first one"):
        checkpoint.newest(tmp_path / "checkpoints")
    truncate(save(tmp_path, 1))
    with pytest.raises(UsageError, match=r"none of the 1 checkpoints in .* can be used: .* is truncated"):
        checkpoint.newest(tmp_path)


def test_a_damaged_segment_sends_a_resume_back_but_not_an_evaluation(tmp_path):
    first, second = (checkpoint.write_segment(tmp_path, i, {"r": torch.full((100,), i)}) for i in range(2))
    save(tmp_path, 1, refs=[first])
    second = checkpoint.write_segment(tmp_path, 1, {"r": torch.ones(100)})
    save(tmp_path, 2, refs=[first, second])
    flip(second["file"])(tmp_path / "segments")
    assert checkpoint.newest(tmp_path).step == 1
    assert checkpoint.newest(tmp_path, segments=False).step == 2


# --- segments ---


def test_a_segment_comes_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    arrays = {str(d): random_bits(d, 33, 3, 2) for d in DTYPES}
    arrays["frames"] = torch.randint(0, 256, (33, 4, 84, 84), dtype=torch.uint8)
    arrays["columns"] = torch.randn(33, 8)[:, 2:5]
    arrays["flat"] = torch.arange(33)
    ref = checkpoint.write_segment(tmp_path, 990, arrays)
    file = tmp_path / "segments" / ref["file"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert ref == {
        "file": f"rows_000000000990_{digest}.z",
        "sha256": digest,
        "first": 990,
        "rows": 33,
        "bytes": file.stat().st_size,
    }
    back = checkpoint.read_segment(tmp_path, ref)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape, bits(back[name])) == (array.dtype, array.shape, bits(array)), name
    assert checkpoint.write_segment(tmp_path, 990, arrays) == ref


def test_large_tensors_are_streamed(tmp_path, monkeypatch):
    ring = torch.zeros(64, 1 << 20, dtype=torch.uint8)
    pieces = list(durable.chunks(ring))
    assert len(pieces) == 64 and all(len(piece) == durable.CHUNK for piece in pieces)
    ring[5, 3] = 9
    assert pieces[5][3] == 9, "a chunk is a view of the tensor, not a copy"
    sizes = []
    real = durable.HashedWriter.write
    monkeypatch.setattr(
        durable.HashedWriter, "write", lambda self, data: (sizes.append(len(data)), real(self, data))[1]
    )
    checkpoint.write_segment(tmp_path, 0, {"ring": ring})
    checkpoint.save(tmp_path, 1, {"ring": ring}, {}, [], 1)
    assert max(sizes) == durable.CHUNK


def test_rows_must_agree(tmp_path):
    with pytest.raises(ValueError, match="same number of rows"):
        checkpoint.write_segment(tmp_path, 0, {"a": torch.zeros(3), "b": torch.zeros(4)})


def forge_segment(root, header, body, magic=b"rlganrow", version=1, **ref):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = struct.pack("<8sII", magic, version, len(text)) + text + body
    digest = hashlib.sha256(data).hexdigest()
    (root / "segments").mkdir(parents=True)
    (root / "segments" / f"rows_000000000000_{digest}.z").write_bytes(data)
    found = {"file": f"rows_000000000000_{digest}.z", "sha256": digest, "first": 0, "rows": 4, "bytes": len(data)}
    return {**found, **ref}


def header(shape=(4,), dtype="U8", **extra):
    return {"first": 0, "rows": 4, "arrays": [{"name": "a", "dtype": dtype, "shape": list(shape)}], **extra}


PACKED = zlib.compress(b"abcd", 1)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"header": header(), "body": PACKED, "version": 2}, "has format 2 and this rlgan reads up to 1: upgrade it"),
        ({"header": header(), "body": PACKED, "magic": b"PK\3\4zip!"}, "is refused: it is not a replay segment"),
        ({"header": b"{", "body": PACKED}, "is refused: its header is damaged"),
        ({"header": b"[" * 100_000, "body": PACKED}, "is refused: its header is damaged"),
        ({"header": header(dtype="object"), "body": PACKED}, "is refused: its header is damaged"),
        ({"header": header((4, -1)), "body": PACKED}, "its header does not agree with the manifest"),
        ({"header": header((5,)), "body": PACKED}, "its header does not agree with the manifest"),
        ({"header": header(first=7), "body": PACKED}, "its header does not agree with the manifest"),
        ({"header": header((4, 1 << 40)), "body": PACKED}, "bytes cannot unpack to the 4398046511104 that"),
        ({"header": header((4, 0, 1 << 47)), "body": PACKED}, "bytes cannot unpack to the"),
        ({"header": header((4, 2)), "body": PACKED}, "damaged or fewer than declared"),
        ({"header": header(), "body": PACKED[:-3]}, "it holds more bytes than its header declares"),
        ({"header": header(), "body": b"no zlib"}, "damaged or fewer than declared"),
        ({"header": header(), "body": zlib.compress(b"abcdefgh")}, "it holds more bytes than its header declares"),
        ({"header": header(), "body": PACKED + b"tail"}, "it holds more bytes than its header declares"),
        ({"header": header(), "body": PACKED, "bytes": 5}, "is changed: rows_"),
        ({"header": header(), "body": PACKED, "file": "/etc/passwd"}, "bad name, size or hash"),
    ],
)
def test_a_forged_segment_is_refused(tmp_path, kwargs, sentence):
    ref = forge_segment(tmp_path, **kwargs)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        checkpoint.read_segment(tmp_path, ref)


def test_a_link_in_place_of_segments_is_refused(tmp_path):
    ref = checkpoint.write_segment(tmp_path / "a", 0, {"r": torch.zeros(1)})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "segments").symlink_to(tmp_path / "a" / "segments")
    with pytest.raises(UsageError, match="segments is refused: it is a symbolic link, not a folder"):
        checkpoint.read_segment(tmp_path / "b", ref)
    (tmp_path / "c" / "segments").mkdir(parents=True)
    (tmp_path / "c" / "segments" / ref["file"]).symlink_to(tmp_path / "a" / "segments" / ref["file"])
    with pytest.raises(UsageError, match=r"is refused: rows_\w+\.z is a symbolic link, not a file"):
        checkpoint.read_segment(tmp_path / "c", ref)


def test_a_full_disk_while_writing_rows(tmp_path, monkeypatch):
    calls = Calls(1, errno.ENOSPC)
    spoil(monkeypatch, calls)
    with pytest.raises(RlganError, match=r"^4 rows of the replay could not be saved in .* \(No space left on device\)"):
        checkpoint.write_segment(tmp_path, 0, {"r": torch.zeros(4)})
    assert list((tmp_path / "segments").iterdir()) == []
