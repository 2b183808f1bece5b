"""The colour of glTF materials: factors and textures with their samplers and coordinates.

Texture coordinates (u, v) have v = 0 at a picture's top row. A texture is used through one of the mesh's
coordinate sets and an affine map of it (KHR_texture_transform), which the geometry bakes.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import opengl_basisu
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual.gloss import specular_to_pbr

from render.scene import Material, Texture
from storage.errors import InputError
from storage.pictures import FORMATS
from storage.sources.gltf import Gltf

_WRAPS = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
_NEAREST = 9728
_IMAGE_EXTENSIONS = ("EXT_texture_webp", "EXT_texture_avif", "KHR_texture_basisu")
_KTX2 = b"\xabKTX 20\xbb\r\n\x1a\n"
_ALPHA_MODES: Mapping[str, Literal["opaque", "mask", "blend"]] = {
    "OPAQUE": "opaque",
    "MASK": "mask",
    "BLEND": "blend",
}


@dataclass(frozen=True)
class UvUse:
    """Which texture coordinates a texture takes: a set of the mesh's, and a map of (u, v, 1)."""

    uv_set: int
    uv_from_set: NDArray[np.float64]  # [3, 3]


@dataclass(frozen=True)
class LoadedMaterial:
    """A material, and the coordinates of its two textures (None: no such texture)."""

    material: Material
    base_color_uv: UvUse | None = None
    emissive_uv: UvUse | None = None


@dataclass
class MaterialReader:
    """Reads the materials of one file; every picture is decoded once."""

    gltf: Gltf
    _pictures: dict[int, Image.Image] = field(default_factory=dict)
    _textures: dict[int, Texture] = field(default_factory=dict)
    _materials: dict[int, LoadedMaterial] = field(default_factory=dict)

    def read(self, index: int | None) -> LoadedMaterial:
        """Return material `index` of the file; None stands for glTF's default material."""
        if index is None:
            return LoadedMaterial(Material(double_sided=False))
        if index not in self._materials:
            self._materials[index] = self._read(self.gltf.tree["materials"][index])
        return self._materials[index]

    def _read(self, tree: dict[str, Any]) -> LoadedMaterial:
        extensions = tree.get("extensions", {})
        if gloss := extensions.get("KHR_materials_pbrSpecularGlossiness"):
            factor, texture, base_uv = self._specular_glossiness(gloss)
        else:
            pbr = tree.get("pbrMetallicRoughness", {})
            factor = pbr.get("baseColorFactor", (1.0, 1.0, 1.0, 1.0))
            texture, base_uv = self._texture(pbr.get("baseColorTexture"))
        strength = extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
        emissive_texture, emissive_uv = self._texture(tree.get("emissiveTexture"))
        emissive = [float(strength * x) for x in tree.get("emissiveFactor", (0.0, 0.0, 0.0))]
        material = Material(
            name=str(tree.get("name", "")),
            base_color_factor=(float(factor[0]), float(factor[1]), float(factor[2]), float(factor[3])),
            base_color_texture=texture,
            emissive_factor=(emissive[0], emissive[1], emissive[2]),
            emissive_texture=emissive_texture,
            alpha_mode=_ALPHA_MODES[tree.get("alphaMode", "OPAQUE")],
            alpha_cutoff=float(tree.get("alphaCutoff", 0.5)),
            double_sided=bool(tree.get("doubleSided", False)),
            unlit="KHR_materials_unlit" in extensions,
        )
        return LoadedMaterial(material, base_uv, emissive_uv)

    def _specular_glossiness(self, gloss: dict[str, Any]) -> tuple[list[float], Texture | None, UvUse | None]:
        """Convert the older specular-glossiness parameters to base colour factor and texture."""
        uses = {
            name: gloss[name] for name in ("diffuseTexture", "specularGlossinessTexture") if name in gloss
        }
        converted = specular_to_pbr(
            diffuseFactor=gloss.get("diffuseFactor"),
            specularFactor=gloss.get("specularFactor"),
            glossinessFactor=gloss.get("glossinessFactor"),
            **{name: self._picture_of(use["index"]) for name, use in uses.items()},
        )
        if "baseColorTexture" not in converted:
            return converted["baseColorFactor"], None, None
        use = next(iter(uses.values()))
        wrap, nearest = self._sampler(use["index"])
        texture = Texture(np.asarray(converted["baseColorTexture"].convert("RGBA")), wrap, nearest)
        return [1.0, 1.0, 1.0, 1.0], texture, _uv_use(use)

    def _texture(self, use: dict[str, Any] | None) -> tuple[Texture | None, UvUse | None]:
        if use is None:
            return None, None
        index = use["index"]
        if index not in self._textures:
            wrap, nearest = self._sampler(index)
            self._textures[index] = Texture(np.asarray(self._picture_of(index)), wrap, nearest)
        return self._textures[index], _uv_use(use)

    def _sampler(self, texture: int) -> tuple[tuple[str, str], bool]:
        """Return the wrap modes along u and v, and whether the nearest texel is taken."""
        tree = self.gltf.tree
        index = tree["textures"][texture].get("sampler")
        sampler = {} if index is None else tree["samplers"][index]
        wrap = _WRAPS[sampler.get("wrapS", 10497)], _WRAPS[sampler.get("wrapT", 10497)]
        return wrap, sampler.get("magFilter") == _NEAREST

    def _picture_of(self, texture: int) -> Image.Image:
        """Return the RGBA picture of a texture."""
        tree = self.gltf.tree["textures"][texture]
        extensions = tree.get("extensions", {})
        sources = [extensions[name]["source"] for name in _IMAGE_EXTENSIONS if name in extensions]
        source = sources[0] if sources else tree.get("source")
        if source is None:
            kinds = ", ".join(extensions) or "no picture"
            raise InputError(f"{self.gltf.path}: textures[{texture}]: {kinds}", code="unsupported-texture")
        if source not in self._pictures:
            self._pictures[source] = self._decode(source)
        return self._pictures[source]

    def _decode(self, source: int) -> Image.Image:
        self.gltf.check_time()
        tree = self.gltf.tree["images"][source]
        data = self.gltf.view(tree["bufferView"]) if "bufferView" in tree else self.gltf.read_uri(tree["uri"])
        try:
            if data.startswith(_KTX2):
                texture = opengl_basisu.open(data)
                self._check_size(source, (texture.width, texture.height))
                return Image.fromarray(texture.transcode(opengl_basisu.Target.RGBA8).data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # oddities that Pillow reads all the same
                picture = Image.open(io.BytesIO(data), formats=FORMATS)
                self._check_size(source, picture.size)
                return _to_rgba(picture)
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.gltf.path}: images[{source}]: {error}", code="texture") from error

    def _check_size(self, source: int, size: tuple[int, int]) -> None:
        if max(size) > self.gltf.limits.texture_px:
            found, wanted = (
                f"{size[0]} x {size[1]}",
                f"at most {self.gltf.limits.texture_px} (limits.texture_px)",
            )
            raise InputError.mismatch(
                self.gltf.path, f"images[{source}]", found=found, wanted=wanted, code="texture-size"
            )


def _to_rgba(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would clip 16-bit grey at 255
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    return picture.convert("RGBA")


def _uv_use(use: dict[str, Any]) -> UvUse:
    """Read a texture reference's coordinate set and its KHR_texture_transform."""
    transform = use.get("extensions", {}).get("KHR_texture_transform", {})
    uv_set = transform.get("texCoord", use.get("texCoord", 0))
    angle = transform.get("rotation", 0.0)
    rotation = np.array(
        [[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    scale = np.diag([*transform.get("scale", (1.0, 1.0)), 1.0])
    translation = np.eye(3)
    translation[:2, 2] = transform.get("offset", (0.0, 0.0))
    return UvUse(uv_set, translation @ rotation @ scale)
