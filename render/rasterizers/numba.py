"""The CPU rasterizer: integer edge functions on a 1/16-pixel grid, compiled by numba, one thread an image.

Letters: N images, B frames, L layers, H rows, W columns, V vertices, F faces.  Frame: as in `protocol`.
Each thread draws into a buffer of keys, (nearness of the fragment, triangle number + 1) in one whole number:
the greater key is nearer, or the later of two equally near triangles. Eight columns are one vector
instruction. The order of drawing does not matter, and so bytes do not depend on the number of threads.
"""

from collections.abc import Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.shading import PosedLayers, fill_weights, shade_layer
from render.threads import available_threads, for_each

FRAMES_PER_THREAD = 8  # keeps all threads busy although one layer of a frame has most of the triangles
TRIANGLES_AT_ONCE = 1 << 22  # whose posed vertices take some 200 MB

SUBPIXELS = 16  # grid steps a pixel
SUBPIXEL_BITS = 4
HALF = SUBPIXELS // 2
LANES = 8  # columns drawn at once; images of keys are padded by so many
EMPTY = np.int64(-(1 << 63))  # less than all keys, and of triangle number 0
GUARD = (
    4096.0  # vertices this many half-pictures outside are clipped, which keeps edge functions within 64 bits
)

# What is wrong with a vertex, as bits: outside one of the six planes, …
LEFT, RIGHT, LOW, HIGH, NEAR, FAR = 1, 2, 4, 8, 16, 32
OUTSIDE = LEFT | RIGHT | LOW | HIGH | NEAR | FAR
UNSNAPPABLE = 64  # … behind the camera or too far outside to be put on the grid, …
NOT_FINITE = 128  # … or NaN or infinite
SNAPPED = np.dtype([("x", np.int32), ("y", np.int32), ("z", np.float32), ("faults", np.int32)])  # a vertex


class NumbaRasterizer:
    """Rasterizes on all CPU cores that this process may use; one instance serves one caller at a time."""

    name = "numba"

    def __init__(self, num_threads: int | None = None) -> None:
        self._num_threads = num_threads or available_threads()
        self._snapped = np.empty(0, SNAPPED)
        self._resolution = (0, 0)  # of `_spare` and `_drawn`
        self._spare: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []
        self._drawn = np.zeros((0, 0, 0), np.int32), np.zeros((0, 4), np.int64)

    def frames_at_once(
        self, images_per_frame: int, triangles_per_frame: int, resolution: tuple[int, int]
    ) -> int:
        """Return eight frames a thread, as far as memory for their vertices is no concern."""
        at_most = TRIANGLES_AT_ONCE // max(1, triangles_per_frame)
        return max(1, min(at_most, FRAMES_PER_THREAD * self._num_threads))

    def rasterize(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2]
        resolution: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Return [N, H, W, 4] (u, v, z/w, triangle number + 1), see `Rasterizer`."""
        ids = next(self.nearest_ids(clip_vertices, triangles, ranges, resolution))
        image = np.zeros((*ids.shape, 4), np.float32)

        def fill(n: int) -> None:
            fill_weights(ids[n], clip_vertices, triangles, image[n])

        for_each(fill, range(len(ids)), self._num_threads)
        return image

    def nearest_ids(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2]
        resolution: tuple[int, int],
        depth_layers: int = 1,
    ) -> Iterator[NDArray[np.int32]]:
        """Yield [N, H, W] triangle number + 1, nearest fragments first, see `Rasterizer`."""
        if len(ranges) and not (ranges.min() >= 0 and ranges.sum(axis=1).max() <= len(triangles)):
            raise ValueError(f"ranges reach outside the {len(triangles)} triangles")
        self._prepare(resolution)
        snapped = self._snap(clip_vertices[None], resolution)[0]
        ids, boxes = self._images(len(ranges))
        peeled = depth_layers > 1
        before = np.full((len(ranges), *_padded(resolution)) if peeled else (0, 0, 0), -1 - EMPTY)

        def draw(n: int) -> None:
            ids[n, boxes[n, 0] : boxes[n, 1], boxes[n, 2] : boxes[n, 3]] = 0
            keys, _ = spare = self._take_spare()
            behind = before[n] if peeled else None
            boxes[n] = _draw_range(clip_vertices, snapped, triangles, *ranges[n], behind, keys, resolution[1])
            if peeled:
                before[n] = keys
            _take_numbers(keys, boxes[n], ids[n])
            self._spare.append(spare)

        largest_first = np.argsort(-ranges[:, 1], kind="stable").tolist()
        for _ in range(depth_layers):
            for_each(draw, largest_first, self._num_threads)
            yield ids

    def draw_layers(
        self,
        posed: PosedLayers,
        depth_range: tuple[float, float],
        normal_codes: NDArray[np.uint8],  # [B, L, H, W, 3]
        depth_codes: NDArray[np.uint16],  # [B, L, H, W]
    ) -> None:
        """Write the codes of covered pixels, see `Rasterizer`: a layer is drawn and shaded in one go."""
        resolution = depth_codes.shape[2:]
        self._prepare(resolution)
        snapped = self._snap(posed.clip_vertices, resolution)

        def draw(image: tuple[int, int]) -> None:
            frame, layer = image
            keys, ids = spare = self._take_spare()
            own = posed.clip_vertices[frame]
            first, count = posed.ranges[layer]
            box = _draw_range(own, snapped[frame], posed.faces, first, count, None, keys, resolution[1])
            _take_numbers(keys, box, ids)
            shade_layer(
                ids,
                box,
                own,
                posed.normals[frame],
                posed.faces,
                posed.against_normals,
                depth_range,
                normal_codes[frame, layer],
                depth_codes[frame, layer],
            )
            self._spare.append(spare)

        largest_first = np.argsort(-posed.ranges[:, 1], kind="stable").tolist()
        images = [(frame, layer) for layer in largest_first for frame in range(len(snapped))]
        for_each(draw, images, self._num_threads)

    def _prepare(self, resolution: tuple[int, int]) -> None:
        """Forget buffers of another resolution."""
        if resolution != self._resolution:
            self._resolution = resolution
            self._spare = []
            self._drawn = np.zeros((0, *resolution), np.int32), np.zeros((0, 4), np.int64)

    def _take_spare(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return empty keys, and ids to be overwritten, that no thread uses: fresh memory is slow."""
        try:
            return self._spare.pop()
        except IndexError:
            return np.full(_padded(self._resolution), EMPTY), np.empty(self._resolution, np.int32)

    def _snap(self, clip_vertices: NDArray[np.float32], resolution: tuple[int, int]) -> NDArray[np.void]:
        """Return vertices [B, V, 4] as put on the grid, SNAPPED [B, V]."""
        shape = clip_vertices.shape[:2]
        if self._snapped.size < np.prod(shape):
            self._snapped = np.empty(np.prod(shape), SNAPPED)
        snapped = self._snapped[: np.prod(shape)].reshape(shape)

        def snap(frame: int) -> None:
            _snap_vertices(clip_vertices[frame], *resolution, snapped[frame])

        for_each(snap, range(len(snapped)), self._num_threads)
        return snapped

    def _images(self, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return ids [N, H, W] to draw into, and boxes [N, 4] outside which they are 0.

        They are the last call's of this resolution: only what was drawn then has to be cleared.
        """
        if len(self._drawn[0]) < count:
            self._drawn = np.zeros((count, *self._resolution), np.int32), np.zeros((count, 4), np.int64)
        ids, boxes = self._drawn
        return ids[:count], boxes[:count]


def _padded(resolution: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of an image of keys."""
    return resolution[0], resolution[1] + LANES


@njit(nogil=True, cache=True)
def _grid(ndc, pixels):  # type: ignore[no-untyped-def]
    """Return the grid step nearest to a normalized coordinate; a pixel's centre is 16 i + 8."""
    return np.int64(np.floor((ndc + 1.0) * (0.5 * SUBPIXELS * pixels) + 0.5))


@njit(nogil=True, cache=True)
def _snap_vertices(clip_vertices, height, width, snapped):  # type: ignore[no-untyped-def]
    for v in range(len(clip_vertices)):
        x = np.float64(clip_vertices[v, 0])
        y = np.float64(clip_vertices[v, 1])
        z = np.float64(clip_vertices[v, 2])
        w = np.float64(clip_vertices[v, 3])
        if not np.isfinite(x + y + z + w):
            snapped[v].faults = NOT_FINITE
            continue
        bits = LEFT * (x < -w) | RIGHT * (x > w) | LOW * (y < -w) | HIGH * (y > w)
        bits |= NEAR * (z < -w) | FAR * (z > w)
        if w <= 0.0 or abs(x) > GUARD * w or abs(y) > GUARD * w:
            bits |= UNSNAPPABLE
        else:
            snapped[v].x = _grid(x / w, width)
            snapped[v].y = _grid(y / w, height)
            snapped[v].z = z / w
        snapped[v].faults = bits


@njit(nogil=True, cache=True)
def _draw_range(clip_vertices, snapped, triangles, first, count, behind, keys, width):  # type: ignore[no-untyped-def]
    """Draw `count` triangles into `keys` [H, W + LANES]; unless None, only fragments behind `behind` count.

    Return first row, last row + 1, first column and last column + 1 of a box that holds all that was drawn
    into the picture; outside it, `keys` change at the padding only.
    """
    first_row, stop_row, first_column, stop_column = len(keys), 0, width, 0
    polygons = np.empty((2, 9, 4))
    for t in range(first, first + count):
        a, b, c = snapped[triangles[t, 0]], snapped[triangles[t, 1]], snapped[triangles[t, 2]]
        some = a.faults | b.faults | c.faults
        if some & (NEAR | FAR | UNSNAPPABLE | NOT_FINITE):
            if not (a.faults & b.faults & c.faults & OUTSIDE) and not some & NOT_FINITE:
                drawn = _draw_clipped(clip_vertices, triangles[t], polygons, t + 1, behind, keys, width)
            else:
                continue
        else:
            drawn = _draw_triangle(
                (np.int64(a.x), np.int64(a.y), np.float64(a.z)),
                (np.int64(b.x), np.int64(b.y), np.float64(b.z)),
                (np.int64(c.x), np.int64(c.y), np.float64(c.z)),
                t + 1,
                behind,
                keys,
                width,
            )
        first_row, stop_row = min(first_row, drawn[0]), max(stop_row, drawn[1])
        first_column, stop_column = min(first_column, drawn[2]), max(stop_column, drawn[3])
    return first_row, stop_row, first_column, stop_column


@njit(nogil=True, cache=True)
def _draw_clipped(clip_vertices, corners, polygons, number, behind, keys, width):  # type: ignore[no-untyped-def]
    """Clip a triangle and draw what is left of it; return the box of `_draw_range`."""
    first_row, stop_row, first_column, stop_column = len(keys), 0, width, 0
    for corner in range(3):
        polygons[0, corner] = clip_vertices[corners[corner]]
    polygon = _clip_polygon(polygons)
    for corner in range(1, len(polygon) - 1):
        drawn = _draw_triangle(
            _snap_corner(polygon[0], len(keys), width),
            _snap_corner(polygon[corner], len(keys), width),
            _snap_corner(polygon[corner + 1], len(keys), width),
            number,
            behind,
            keys,
            width,
        )
        first_row, stop_row = min(first_row, drawn[0]), max(stop_row, drawn[1])
        first_column, stop_column = min(first_column, drawn[2]), max(stop_column, drawn[3])
    return first_row, stop_row, first_column, stop_column


@njit(nogil=True, cache=True)
def _take_numbers(keys, box, ids):  # type: ignore[no-untyped-def]
    """Move triangle numbers + 1 from `keys` [H, W + LANES] to `ids` [H, W] and leave empty keys."""
    for row in range(box[0], box[1]):
        for column in range(box[2], box[3]):
            ids[row, column] = np.int32(keys[row, column] & 0x7FFFFFFF)
            keys[row, column] = EMPTY


@njit(nogil=True, cache=True)
def _snap_corner(corner, height, width):  # type: ignore[no-untyped-def]
    x = _grid(corner[0] / corner[3], width)
    y = _grid(corner[1] / corner[3], height)
    return x, y, np.float64(np.float32(corner[2] / corner[3]))


@njit(nogil=True, cache=True)
def _clip_polygon(polygons):  # type: ignore[no-untyped-def]
    """Clip the triangle in polygons[0, :3] to the near, far and four guard planes (Sutherland–Hodgman).

    A crossing is computed from its inside end, so that two triangles which share an edge cut it alike.
    """
    num, source = 3, 0
    for plane in range(6):
        target = 1 - source
        kept = 0
        for k in range(num):
            here = polygons[source, k]
            after = polygons[source, (k + 1) % num]
            here_in = _plane_distance(here, plane)
            after_in = _plane_distance(after, plane)
            if here_in >= 0.0:
                polygons[target, kept] = here
                kept += 1
            if (here_in >= 0.0) != (after_in >= 0.0):
                for axis in range(4):
                    if here_in >= 0.0:
                        step = here_in / (here_in - after_in)
                        polygons[target, kept, axis] = here[axis] + step * (after[axis] - here[axis])
                    else:
                        step = after_in / (after_in - here_in)
                        polygons[target, kept, axis] = after[axis] + step * (here[axis] - after[axis])
                kept += 1
        num, source = kept, target
    for k in range(num):
        if polygons[source, k, 3] <= 0.0:  # touches the camera's centre only
            num = 0
    return polygons[source, :num]


@njit(nogil=True, cache=True)
def _plane_distance(vertex, plane):  # type: ignore[no-untyped-def]
    """Return how far inside a plane a clip-space vertex is: near, far, then the four guard planes."""
    sign = 1.0 if plane % 2 == 0 else -1.0
    if plane < 2:
        return vertex[3] + sign * vertex[2]
    return GUARD * vertex[3] + sign * vertex[plane // 2 - 1]


@njit(nogil=True, cache=True)
def _edge(start, end, x, y):  # type: ignore[no-untyped-def]
    """Return the edge function at (x, y), positive inside, less 1 where the edge itself is not covered."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    covered = (dy < 0) | ((dy == 0) & (dx > 0))  # a left edge, or the lowest row's; without a branch
    return dx * (y - start[1]) - dy * (x - start[0]) - (1 - np.int64(covered))


@njit(nogil=True, cache=True)
def _key(z, number):  # type: ignore[no-untyped-def]
    """Return the key of a fragment at z (float32): nearer is greater, then later."""
    bits = np.int64(np.float32(z + np.float32(0)).view(np.int32))  # −0 becomes 0
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # in the order of z, below 0 too
    return (~ascending << 32) | number


@njit(nogil=True, cache=True, inline="always")  # a tenth faster than as a call
def _draw_triangle(p0, p1, p2, number, behind, keys, width):  # type: ignore[no-untyped-def]
    """Draw a triangle (x, y on the grid; z/w) where it is nearest so far and behind `behind`."""
    first_column = max((min(p0[0], p1[0], p2[0]) + HALF - 1) >> SUBPIXEL_BITS, 0)
    last_column = min((max(p0[0], p1[0], p2[0]) - HALF) >> SUBPIXEL_BITS, width - 1)
    first_row = max((min(p0[1], p1[1], p2[1]) + HALF - 1) >> SUBPIXEL_BITS, 0)
    last_row = min((max(p0[1], p1[1], p2[1]) - HALF) >> SUBPIXEL_BITS, len(keys) - 1)
    area = (p1[0] - p0[0]) * (p2[1] - p0[1]) - (p1[1] - p0[1]) * (p2[0] - p0[0])
    if first_column > last_column or first_row > last_row or area == 0:
        return len(keys), 0, width, 0
    if area < 0:
        p1, p2, area = p2, p1, -area
    x, y = SUBPIXELS * first_column + HALF, SUBPIXELS * first_row + HALF
    row0, row1, row2 = _edge(p1, p2, x, y), _edge(p2, p0, x, y), _edge(p0, p1, x, y)
    right0, down0 = SUBPIXELS * (p1[1] - p2[1]), SUBPIXELS * (p2[0] - p1[0])
    right1, down1 = SUBPIXELS * (p2[1] - p0[1]), SUBPIXELS * (p0[0] - p2[0])
    right2, down2 = SUBPIXELS * (p0[1] - p1[1]), SUBPIXELS * (p1[0] - p0[0])
    per_area = 1.0 / area
    slope1, slope2 = (p1[2] - p0[2]) * per_area, (p2[2] - p0[2]) * per_area
    row_z = p0[2] + (
        slope1 * ((p0[0] - p2[0]) * (y - p2[1]) - (p0[1] - p2[1]) * (x - p2[0]))
        + slope2 * ((p1[0] - p0[0]) * (y - p0[1]) - (p1[1] - p0[1]) * (x - p0[0]))
    )
    right_z, down_z = slope1 * right1 + slope2 * right2, slope1 * down1 + slope2 * down2
    # Whole vectors of columns; no branch in the loop: pixels outside keep their key.
    columns = (last_column - first_column + LANES) & ~(LANES - 1)
    for row in range(first_row, last_row + 1):
        line = keys[row]
        for k in range(columns):
            inside = (row0 + right0 * k | row1 + right1 * k | row2 + right2 * k) >= 0
            key = _key(np.float32(row_z + right_z * k), number)
            if behind is not None:
                inside &= key >> 32 < behind[row, first_column + k] >> 32
            nearest = line[first_column + k]
            line[first_column + k] = key if inside & (key > nearest) else nearest
        row0 += down0
        row1 += down1
        row2 += down2
        row_z += down_z
    return first_row, last_row + 1, first_column, last_column + 1
