"""Unlit six views are those of pyrender: an independent reader, rasterizer and texture sampling (OpenGL)."""

import os
from pathlib import Path

import pytest

from tests.bench.pyrender_agreement import Agreement, compare, table, write_table


@pytest.fixture(scope="module")
def pyrender() -> None:
    """Skip where pyrender is not installed or finds neither EGL nor OSMesa."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    pyrender = pytest.importorskip("pyrender", reason="pyrender is not installed", exc_type=ImportError)
    import OpenGL.error

    try:
        pyrender.OffscreenRenderer(8, 8).delete()
    except (AttributeError, ImportError, RuntimeError, ValueError, OpenGL.error.Error) as error:
        pytest.skip(f"pyrender cannot draw here: {error}")


@pytest.mark.parametrize("name", ["dm_pen", "raylib_greenman_hat", "stereokit_clipboard"])
@pytest.mark.usefixtures("pyrender")
def test_silhouettes_and_colours_agree(shared_data: Path, name: str) -> None:
    agreement = compare(shared_data / "objects" / "good" / f"{name}.glb")
    assert agreement.iou >= 0.99
    assert agreement.color_error <= 3


def test_table_replaces_the_one_between_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- pyrender table -->\nold\n<!-- end of pyrender table -->\nafter\n")
    rows = [Agreement("a", 12, 0.999, 0.5), Agreement("b", 2, 0.991, 1.5)]
    write_table(table(rows), document)
    text = document.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert "old" not in text
    assert "| **worst** | | **0.9910** | **1.50** |" in text
