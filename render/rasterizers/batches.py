"""How much goes into one call of a rasterizer: what memory holds, and what its numbers can count.

nvdiffrast returns triangle numbers as float32, which tells 2^24 apart, and its 32-bit offsets reach 2^31
elements of an image tensor.
"""

MAX_TRIANGLES = 1 << 24
MAX_ELEMENTS = 1 << 31
CHANNELS = 4  # of a rasterized image: u, v, z/w, number


def images_at_once(resolution: tuple[int, int], memory_bytes: int, bytes_per_pixel: int) -> int:
    """Return how many images (H, W) are drawn together in so much memory: at least one."""
    pixels = resolution[0] * resolution[1]
    if CHANNELS * pixels >= MAX_ELEMENTS:
        raise ValueError(f"an image of {resolution[0]} by {resolution[1]} pixels has more than 2^31 elements")
    return max(1, min(memory_bytes // (bytes_per_pixel * pixels), (MAX_ELEMENTS - 1) // (CHANNELS * pixels)))


def frames_at_once(images: int, images_per_frame: int, triangles_per_frame: int) -> int:
    """Return how many whole frames those images make, all of whose triangles get numbers: at least one."""
    countable = (MAX_TRIANGLES - 1) // max(1, triangles_per_frame)
    return max(1, min(images // images_per_frame, countable))
