"""Compare the six views with those of pyrender, an independent renderer (OpenGL) with a reader of its own.

pyrender gets what trimesh reads from the file; both draw unlit and to one scale. Silhouettes are the pixels
whose centres are covered.
Needs `pip install -e '.[bench]'` and EGL or OSMesa. To write the table of docs/objects.md:

    python -m tests.bench.pyrender_agreement ../shared/data/objects/good --table docs/objects.md
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from render.lighting import UNLIT
from render.scene import Mesh
from render.six_views import VIEWS, SixViewConfig, canonicalize, render_six_views
from render.textures import srgb_from_linear
from storage.sources.glb import load_glb

BEGIN, END = "<!-- pyrender table -->", "<!-- end of pyrender table -->"
FAR = 4.0  # radii: the depth of the views' box; the camera stands in its middle's front


@dataclass(frozen=True)
class Agreement:
    """How far two sets of six views agree."""

    name: str
    triangles: int
    iou: float  # of the silhouettes, the worst of six views
    color_error: (
        float  # median over pixels that both cover, of the mean absolute difference of R, G, B in codes
    )


def compare(path: Path, size: int = 512) -> Agreement:
    """Render an object's six views both ways and compare them."""
    mesh, scale_m, centre = canonicalize(load_glb(path))
    config = SixViewConfig(size=size, supersample=1, lighting=UNLIT, rasterizer="numba")
    ours = render_six_views(_without_glow(mesh), config)
    theirs = pyrender_views(path, scale_m, centre, config)
    covered, theirs_covered = ours[..., 3] > 127, theirs[..., 3] > 127
    both = covered & theirs_covered
    union = (covered | theirs_covered).sum(axis=(1, 2))
    iou = both.sum(axis=(1, 2)) / np.maximum(union, 1)
    difference = np.abs(ours[both][:, :3].astype(float) - theirs[both][:, :3]).mean(axis=1)
    return Agreement(path.stem, len(mesh.faces), float(iou[union > 0].min()), float(np.median(difference)))


def _without_glow(mesh: Mesh) -> Mesh:
    """Drop emission, which pyrender's flat shading leaves out."""
    dark = [replace(material, emissive_factor=(0.0, 0.0, 0.0)) for material in mesh.materials]
    return replace(mesh, materials=tuple(dark))


def pyrender_views(path: Path, scale_m: float, centre: NDArray, config: SixViewConfig) -> NDArray[np.uint8]:
    """Return pyrender's six views [6, H, W, 4] of a file, moved and scaled as given."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    import pyrender

    scene = pyrender.Scene(bg_color=(0, 0, 0, 0))
    nodes = [scene.add(pyrender.Mesh([part])) for part in _primitives(path, scale_m, centre)]
    half_view = 1 + config.margin
    camera = pyrender.OrthographicCamera(xmag=half_view, ymag=half_view, znear=FAR / 2 - 1.5, zfar=FAR)
    renderer = pyrender.OffscreenRenderer(config.size, config.size)
    everything = dict.fromkeys(nodes, (255, 255, 255))
    views = np.zeros((6, config.size, config.size, 4), np.uint8)
    try:
        for view, axes in zip(views, VIEWS.values(), strict=True):
            pose = np.eye(4)
            pose[:3, :3] = np.array(axes, float).T  # columns right, up, towards the viewer
            pose[:3, 3] = pose[:3, 2] * FAR / 2
            node = scene.add(camera, pose=pose)
            color, _ = renderer.render(scene, pyrender.RenderFlags.FLAT)
            # Segmentation is drawn without multisampling: covered is what covers a pixel's centre.
            silhouette, _ = renderer.render(scene, pyrender.RenderFlags.SEG, everything)
            scene.remove_node(node)
            view[..., :3], view[..., 3] = color, silhouette[..., 0]
    finally:
        renderer.delete()
    return views


def _primitives(path: Path, scale_m: float, centre: NDArray) -> Iterator[Any]:
    import pyrender

    for geometry in trimesh.load_scene(path, process=False).dump():
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        material = getattr(geometry.visual, "material", None)
        factor = np.ones(4) if material is None else _factor(material.baseColorFactor)
        picture = None if material is None else material.baseColorTexture
        texture = None
        if picture is not None:
            texture = pyrender.Texture(source=picture.convert("RGBA"), source_channels="RGBA")
        double_sided = material is None or bool(material.doubleSided)
        faces = geometry.faces
        if double_sided:  # segmentation would cull their backs
            faces = np.concatenate([faces, faces[:, ::-1]])
        yield pyrender.Primitive(
            positions=(geometry.vertices - centre) / scale_m,
            indices=faces,
            texcoord_0=None if picture is None else geometry.visual.uv,
            material=pyrender.MetallicRoughnessMaterial(
                baseColorFactor=factor,
                baseColorTexture=texture,
                doubleSided=double_sided,
            ),
            mode=4,
        )


def _factor(factor: Any) -> NDArray[np.float64]:
    """Return a factor as pyrender's flat shader wants it: encoded, for it multiplies encoded texels."""
    if factor is None:
        return np.ones(4)
    factor = np.asarray(factor)
    linear = factor / 255 if factor.dtype == np.uint8 else factor.astype(float)
    return np.append(srgb_from_linear(linear[:3]), linear[3])


def table(agreements: list[Agreement]) -> str:
    """Return a Markdown table, the worst rows marked by the last one."""
    lines = ["| object | triangles | silhouette IoU, worst of six | median colour error, codes of 255 |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {a.name} | {a.triangles} | {a.iou:.4f} | {a.color_error:.2f} |" for a in agreements]
    worst_iou, worst_error = min(a.iou for a in agreements), max(a.color_error for a in agreements)
    return "\n".join([*lines, f"| **worst** | | **{worst_iou:.4f}** | **{worst_error:.2f}** |"])


def write_table(text: str, path: Path) -> None:
    """Put a table between the marks of a document."""
    document = path.read_text(encoding="utf-8")
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of .glb files")
    parser.add_argument("--size", type=int, default=512, help="pixels on a side of each view")
    parser.add_argument("--table", type=Path, help="document to write the table into")
    arguments = parser.parse_args()
    agreements = []
    for path in sorted(arguments.folder.glob("*.glb")):
        agreements.append(compare(path, arguments.size))
        print(agreements[-1], flush=True)
    if arguments.table is not None:
        write_table(table(agreements), arguments.table)


if __name__ == "__main__":
    main()
