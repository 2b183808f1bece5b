"""The CPU rasterizer: integer edge functions on a 1/16-pixel grid, compiled by numba, one thread a range.

Letters: N images, H rows, W columns, V vertices, F faces.  Frame: as in `protocol`.
Bytes do not depend on the number of threads: every image is drawn by one thread, in triangle order.
"""

from collections.abc import Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.rasterizers.batches import images_at_once
from render.shading import fill_weights
from render.threads import available_threads, for_each

IDS_BYTES = 1 << 28
FRAMES_PER_THREAD = 2  # keeps all threads busy although one layer of a frame has most of the triangles

SUBPIXELS = 16  # grid steps a pixel
HALF = SUBPIXELS // 2
GUARD = (
    4096.0  # vertices this many half-pictures outside are clipped, which keeps edge functions within 64 bits
)

# What is wrong with a vertex, as bits: outside one of the six planes, …
LEFT, RIGHT, LOW, HIGH, NEAR, FAR = 1, 2, 4, 8, 16, 32
OUTSIDE = LEFT | RIGHT | LOW | HIGH | NEAR | FAR
UNSNAPPABLE = 64  # … behind the camera or too far outside to be put on the grid, …
NOT_FINITE = 128  # … or NaN or infinite


class NumbaRasterizer:
    """Rasterizes on all CPU cores that this process may use; one instance serves one caller at a time."""

    name = "numba"

    def __init__(self, num_threads: int | None = None) -> None:
        self._num_threads = num_threads or available_threads()
        self._drawn: dict[tuple[int, int], tuple[NDArray[np.int32], NDArray[np.int64]]] = {}
        self._screen = np.empty((0, 2), np.int32)
        self._depth = np.empty(0, np.float32)
        self._faults = np.empty(0, np.uint8)

    def frames_at_once(
        self, images_per_frame: int, triangles_per_frame: int, resolution: tuple[int, int]
    ) -> int:
        """Return two frames a thread, as far as their ids fit into IDS_BYTES: more would leave the caches."""
        images = images_at_once(resolution, IDS_BYTES, np.dtype(np.int32).itemsize)
        return max(1, min(images // images_per_frame, FRAMES_PER_THREAD * self._num_threads))

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
        screen, depth, faults = self._snap(clip_vertices, resolution)
        ids, boxes = self._images(len(ranges), resolution)
        peeled = depth_layers > 1
        spare: list[NDArray[np.float32]] = []  # one a thread: fresh memory for every image costs page faults
        behind = np.full(ids.shape if peeled else (0, 0), -np.inf, np.float32)
        nearest = np.empty_like(behind)

        def draw(n: int) -> None:
            ids[n, boxes[n, 0] : boxes[n, 1], boxes[n, 2] : boxes[n, 3]] = 0
            geometry = clip_vertices, screen, depth, faults, triangles
            if peeled:
                nearest[n] = np.inf
                _draw_range(*geometry, *ranges[n], behind[n], nearest[n], ids[n], boxes[n])
                return
            own_nearest = spare.pop() if spare else np.empty(resolution, np.float32)
            _draw_range(*geometry, *ranges[n], behind, own_nearest, ids[n], boxes[n])
            spare.append(own_nearest)

        largest_first = np.argsort(-ranges[:, 1], kind="stable").tolist()
        for _ in range(depth_layers):
            for_each(draw, largest_first, self._num_threads)
            behind, nearest = nearest, behind
            yield ids

    def _snap(
        self, clip_vertices: NDArray[np.float32], resolution: tuple[int, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
        """Return grid positions [V, 2], z/w [V] and fault bits [V] of all vertices."""
        num_vertices = len(clip_vertices)
        if len(self._screen) < num_vertices:
            self._screen = np.empty((num_vertices, 2), np.int32)
            self._depth = np.empty(num_vertices, np.float32)
            self._faults = np.empty(num_vertices, np.uint8)
        snapped = self._screen[:num_vertices], self._depth[:num_vertices], self._faults[:num_vertices]
        _snap_vertices(clip_vertices, resolution[0], resolution[1], *snapped)
        return snapped

    def _images(self, count: int, resolution: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return ids [N, H, W] to draw into, and boxes [N, 4] outside which they are 0.

        They are the last call's of this resolution: only what was drawn then has to be cleared.
        """
        if resolution not in self._drawn or len(self._drawn[resolution][0]) < count:
            self._drawn[resolution] = np.zeros((count, *resolution), np.int32), np.zeros((count, 4), np.int64)
        ids, boxes = self._drawn[resolution]
        return ids[:count], boxes[:count]


@njit(nogil=True, cache=True)
def _grid(ndc, pixels):  # type: ignore[no-untyped-def]
    """Return the grid step nearest to a normalized coordinate; a pixel's centre is 16 i + 8."""
    return np.int64(np.floor((ndc + 1.0) * (0.5 * SUBPIXELS * pixels) + 0.5))


@njit(nogil=True, cache=True)
def _snap_vertices(clip_vertices, height, width, screen, depth, faults):  # type: ignore[no-untyped-def]
    for v in range(len(clip_vertices)):
        x = np.float64(clip_vertices[v, 0])
        y = np.float64(clip_vertices[v, 1])
        z = np.float64(clip_vertices[v, 2])
        w = np.float64(clip_vertices[v, 3])
        if not np.isfinite(x + y + z + w):
            faults[v] = NOT_FINITE
            continue
        bits = LEFT * (x < -w) | RIGHT * (x > w) | LOW * (y < -w) | HIGH * (y > w)
        bits |= NEAR * (z < -w) | FAR * (z > w)
        if w <= 0.0 or abs(x) > GUARD * w or abs(y) > GUARD * w:
            bits |= UNSNAPPABLE
        else:
            screen[v, 0] = _grid(x / w, width)
            screen[v, 1] = _grid(y / w, height)
            depth[v] = z / w
        faults[v] = bits


@njit(nogil=True, cache=True)
def _draw_range(  # type: ignore[no-untyped-def]
    clip_vertices, screen, depth, faults, triangles, first, count, behind, nearest, ids, box
):
    """Draw `count` triangles into empty `ids` [H, W]; only fragments behind `behind` [H, W] count, if any.

    `nearest` [H, W] means something where ids do. `box` becomes first row, last row + 1, first column and
    last column + 1 of a box that holds all that was drawn.
    """
    box[0], box[1], box[2], box[3] = ids.shape[0], 0, ids.shape[1], 0
    polygons = np.empty((2, 9, 4))
    for t in range(first, first + count):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        some = faults[a] | faults[b] | faults[c]
        if (faults[a] & faults[b] & faults[c] & OUTSIDE) or some & NOT_FINITE:
            continue
        if not some & (NEAR | FAR | UNSNAPPABLE):
            _draw_triangle(
                (np.int64(screen[a, 0]), np.int64(screen[a, 1]), np.float64(depth[a])),
                (np.int64(screen[b, 0]), np.int64(screen[b, 1]), np.float64(depth[b])),
                (np.int64(screen[c, 0]), np.int64(screen[c, 1]), np.float64(depth[c])),
                t + 1,
                behind,
                nearest,
                ids,
                box,
            )
            continue
        for corner in range(3):
            polygons[0, corner] = clip_vertices[triangles[t, corner]]
        polygon = _clip_polygon(polygons)
        for corner in range(1, len(polygon) - 1):
            _draw_triangle(
                _snap_corner(polygon[0], ids.shape),
                _snap_corner(polygon[corner], ids.shape),
                _snap_corner(polygon[corner + 1], ids.shape),
                t + 1,
                behind,
                nearest,
                ids,
                box,
            )


@njit(nogil=True, cache=True)
def _snap_corner(corner, resolution):  # type: ignore[no-untyped-def]
    x = _grid(corner[0] / corner[3], resolution[1])
    y = _grid(corner[1] / corner[3], resolution[0])
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
    covered = dy < 0 or (dy == 0 and dx > 0)  # a left edge, or the lowest row's
    return dx * (y - start[1]) - dy * (x - start[0]) - (0 if covered else 1)


@njit(nogil=True, cache=True, inline="always")  # a tenth faster than as a call
def _draw_triangle(p0, p1, p2, number, behind, nearest, ids, box):  # type: ignore[no-untyped-def]
    """Write `number` where the triangle (x, y on the grid; z/w) is nearest so far and behind `behind`."""
    peeled = behind.size > 0
    height, width = ids.shape
    first_column = max((min(p0[0], p1[0], p2[0]) - HALF + SUBPIXELS - 1) // SUBPIXELS, 0)
    last_column = min((max(p0[0], p1[0], p2[0]) - HALF) // SUBPIXELS, width - 1)
    first_row = max((min(p0[1], p1[1], p2[1]) - HALF + SUBPIXELS - 1) // SUBPIXELS, 0)
    last_row = min((max(p0[1], p1[1], p2[1]) - HALF) // SUBPIXELS, height - 1)
    if first_column > last_column or first_row > last_row:
        return
    area = (p1[0] - p0[0]) * (p2[1] - p0[1]) - (p1[1] - p0[1]) * (p2[0] - p0[0])
    if area == 0:
        return
    if area < 0:
        p1, p2, area = p2, p1, -area
    box[0], box[1] = min(box[0], first_row), max(box[1], last_row + 1)
    box[2], box[3] = min(box[2], first_column), max(box[3], last_column + 1)
    x, y = SUBPIXELS * first_column + HALF, SUBPIXELS * first_row + HALF
    row0, row1, row2 = _edge(p1, p2, x, y), _edge(p2, p0, x, y), _edge(p0, p1, x, y)
    right0, right1, right2 = (
        SUBPIXELS * (p1[1] - p2[1]),
        SUBPIXELS * (p2[1] - p0[1]),
        SUBPIXELS * (p0[1] - p1[1]),
    )
    down0, down1, down2 = (
        SUBPIXELS * (p2[0] - p1[0]),
        SUBPIXELS * (p0[0] - p2[0]),
        SUBPIXELS * (p1[0] - p0[0]),
    )
    per_area = 1.0 / area
    slope1, slope2 = (p1[2] - p0[2]) * per_area, (p2[2] - p0[2]) * per_area
    row_z = p0[2] + (
        slope1 * ((p0[0] - p2[0]) * (y - p2[1]) - (p0[1] - p2[1]) * (x - p2[0]))
        + slope2 * ((p1[0] - p0[0]) * (y - p0[1]) - (p1[1] - p0[1]) * (x - p0[0]))
    )
    right_z, down_z = slope1 * right1 + slope2 * right2, slope1 * down1 + slope2 * down2
    for row in range(first_row, last_row + 1):
        e0, e1, e2 = row0, row1, row2
        for column in range(first_column, last_column + 1):
            if (e0 | e1 | e2) >= 0:
                z = np.float32(row_z + right_z * (column - first_column))
                if (ids[row, column] == 0 or z <= nearest[row, column]) and not (
                    peeled and z <= behind[row, column]
                ):
                    nearest[row, column] = z
                    ids[row, column] = number
            e0 += right0
            e1 += right1
            e2 += right2
        row0 += down0
        row1 += down1
        row2 += down2
        row_z += down_z
