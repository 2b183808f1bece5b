"""A full disk and a read-only one, for real: small file systems in a mount namespace of the test's own."""

import json
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

import storage.store

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


@cache
def refusal() -> str:
    """Say why no file system can be mounted here; empty: one can."""
    try:
        mounted = subprocess.run(
            [*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unshare is not installed"
    return mounted.stderr.strip() if mounted.returncode else ""


def run_in(mounts: str, folder: Path, program: str) -> dict[str, object]:
    """Run a program on `folder` (its first argument) after `mounts`; return the JSON that it prints."""
    if refusal():
        pytest.skip(f"no mount namespace here: {refusal()}")
    script = f'{mounts} && exec "$1" -c "$2" "$0"'
    command = [*NAMESPACE, script, str(folder), sys.executable, textwrap.dedent(program)]
    root = Path(storage.store.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_full_disk_leaves_whole_records_and_a_clear_message(tmp_path: Path) -> None:
    program = """
        import json, sys
        from pathlib import Path
        import numpy as np
        from storage.errors import StoreError
        from storage.recipe import Recipe
        from storage.store import Store
        from storage.upkeep import verify

        store, ballast = Store(Path(sys.argv[1]) / "store"), Path(sys.argv[1]) / "ballast"
        values = {"values": np.random.default_rng(0).integers(0, 256, (20, 64, 64), dtype=np.uint8)}
        recipes = [Recipe("layers", 1, {"part": str(k)}, {}) for k in range(8)]
        ballast.write_bytes(bytes(600_000))
        written, message = 0, ""
        try:
            for recipe in recipes:
                store.write(recipe, values, {})
                written += 1
        except StoreError as error:
            message = str(error)
        sound_when_full = verify(store) == [] and len(store.records()) == written
        ballast.unlink()
        with store.in_use():
            for recipe in recipes:
                store.write(recipe, values, {})
        sound = verify(store) == [] and len(store.records()) == len(recipes)
        print(json.dumps({"written": written, "message": message, "sound": [sound_when_full, sound]}))
    """
    told = run_in('mount -t tmpfs -o size=1m none "$0"', tmp_path, program)
    assert told["sound"] == [True, True]
    assert told["written"] in range(1, 8)
    assert "No space left on device" in str(told["message"])
    assert "every finished record stays" in str(told["message"])


def test_a_read_only_store_is_read_and_refuses_a_build_in_one_line(tmp_path: Path) -> None:
    program = """
        import json, sys
        from pathlib import Path
        from storage.errors import StoreError
        from storage.store import Store
        from storage.upkeep import gc, status, verify

        store, messages = Store(Path(sys.argv[1])), []
        for act in (lambda: store.in_use().__enter__(), lambda: gc(store)):
            try:
                act()
            except StoreError as error:
                messages.append(str(error))
        print(json.dumps({"messages": messages, "problems": len(verify(store)), "kinds": len(status(store)),
                          "would_go": gc(store, dry_run=True)["layers"].records}))
    """
    store = storage.store.Store(tmp_path / "store")
    store.write(storage.store.Recipe("layers", 1, {}, {}), {}, {})
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    told = run_in(mounts, store.root, program)
    assert (told["problems"], told["kinds"], told["would_go"]) == (0, 1, 1)
    messages = told["messages"]
    assert isinstance(messages, list)
    assert len(messages) == 2
    assert all("cannot write anything: Read-only file system" in message for message in messages)
