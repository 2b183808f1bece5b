"""How large a mesh file may be, and how long reading it may take."""

from pydantic import BaseModel, Field


class GlbLimits(BaseModel, frozen=True, extra="forbid"):
    """Bounds on one .glb or .gltf file; what exceeds one is set aside with a reason, never cut down."""

    mebibytes: float = Field(default=1024.0, gt=0)
    """Bytes of the file and of those beside it that it refers to, in MiB."""
    triangles: int = Field(default=5_000_000, ge=1)
    """Triangles in its scene, instances counted each."""
    parts: int = Field(default=100_000, ge=1)
    """Primitives in its scene, instances counted each."""
    texture_px: int = Field(default=8192, ge=1, le=9459)
    """Texels on a picture's longer side; Pillow's guard against decompression bombs ends at 9459 squared."""
    seconds: float = Field(default=300.0, gt=0)
    """Time to read it, looked at between one array or picture and the next."""


USUAL_LIMITS = GlbLimits()
