"""What a run shows on its page in Prefect: progress, counts, the quarantine, a contact sheet, the losses.

Pictures are part of the artifact (data: addresses), so that the page needs no other server. Artifacts that
have one key are versions of one thing, and the key's page shows its history.
"""

import base64
import io
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import httpx
import numpy as np
from PIL import Image
from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from flows.outcome import Outcome
from flows.progress import listener
from flows.sheets import dataset_sheet
from storage.dataset import Dataset
from storage.errors import one_line
from storage.manifest import dataset_names
from storage.store import Store

logger = logging.getLogger(__name__)

UPDATE_S = 2.0  # between updates of progress: each is a request
RETRY_S = 600.0  # where one failed: the client has tried for a minute
SHEET_WIDTH = 1200  # pixels, at most: a server keeps every version in its database
CHART_WIDTH, CHART_HEIGHT, CHART_POINTS = 640, 240, 160


@contextmanager
def progress_shown(what: str) -> Iterator[None]:
    """Show how far the work inside has come."""
    artifact = create_progress_artifact(0.0, description=what)
    assert isinstance(artifact, UUID)  # a coroutine only inside an event loop
    next_s = time.monotonic() + UPDATE_S

    def tell(description: str, percent: float) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            told = False
            with server_may_be_away():
                update_progress_artifact(artifact, percent, description)
                told = True
            next_s = time.monotonic() + (UPDATE_S if told else RETRY_S)

    token = listener.set(tell)
    try:
        yield
    finally:
        listener.reset(token)
    with server_may_be_away():
        update_progress_artifact(artifact, 100.0, what)


@contextmanager
def server_may_be_away() -> Iterator[None]:
    """Go on where the server does not answer: what is shown on a page is not worth days of training."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        logger.warning("Prefect's server cannot be told: %s", one_line(error))


def show_outcome(outcome: Outcome, dataset: str, store: Store) -> None:
    """Show how many records of what kind were built, what was set aside, and the dataset if it changed."""
    built, there = outcome.counts()
    counts = [
        {"record": kind, "built": built[kind], "there already": there[kind]} for kind in sorted(built | there)
    ]
    create_table_artifact(counts, key=_key(dataset, "records"), description=outcome.summary())
    aside = [
        {"input": entry.input, "code": entry.code, "reason": entry.reason} for entry in outcome.quarantined
    ]
    description = f"{len(aside)} inputs set aside"
    create_table_artifact(aside, key=_key(dataset, "quarantine"), description=description)
    if built and outcome.rows and dataset in dataset_names(store):
        sheet = Image.fromarray(dataset_sheet(Dataset.open(store, dataset)))
        sheet.thumbnail((SHEET_WIDTH, sheet.height))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=80)
        _show_picture(file.getvalue(), "image/jpeg", _key(dataset, "contact-sheet"), "clips of the dataset")


def show_losses(losses: Sequence[float], stage: str) -> None:
    """Show the losses of a run, one a step, as a curve."""
    description = f"{stage} stage, {len(losses)} steps"
    with server_may_be_away():
        _show_picture(loss_chart(losses).encode(), "image/svg+xml", _key(stage, "losses"), description)


def loss_chart(losses: Sequence[float]) -> str:
    """Draw losses, one a step, as an SVG: means over equal parts of the run."""
    parts = np.array_split(np.asarray(losses), min(len(losses), CHART_POINTS))
    means = np.array([part.mean() for part in parts])
    low, high = float(means.min()), float(means.max())
    x = np.linspace(50, CHART_WIDTH - 10, len(means))
    y = np.interp(means, (low, max(high, low + 1e-12)), (CHART_HEIGHT - 30, 15))
    points = " ".join(f"{column:.1f},{row:.1f}" for column, row in zip(x, y, strict=True))
    labels = ((5, 19, f"{high:.3g}"), (5, CHART_HEIGHT - 26, f"{low:.3g}"), (50, CHART_HEIGHT - 8, "step 0"))
    texts = "".join(f'<text x="{column}" y="{row}">{text}</text>' for column, row, text in labels)
    end = f'<text x="{CHART_WIDTH - 10}" y="{CHART_HEIGHT - 8}" text-anchor="end">{len(losses)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{CHART_WIDTH}" height="{CHART_HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<polyline fill="none" stroke="#2563eb" stroke-width="2" points="{points}"/>{texts}{end}</svg>'
    )


def _show_picture(data: bytes, media_type: str, key: str, description: str) -> None:
    address = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    create_image_artifact(address, key=key, description=description)


def _key(*names: str) -> str:
    """Return the artifact's key: lowercase letters, numbers and dashes are allowed."""
    return re.sub("[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")
