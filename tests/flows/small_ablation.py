"""A config of the ablation at its smallest."""

from pathlib import Path

import yaml

from flows.benchmark import UNSEEN

ROOT = Path(__file__).parents[2]
MODEL = {
    "unet.block_out_channels": [8, 16],
    "unet.down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "unet.up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "unet.norm_num_groups": 4,
    "unet.cross_attention_dim": 8,
    "guider.channels": [4, 4, 4, 8],
    "tokens": {"channels": [4, 8], "grid": 2, "points": 2},
}


def ablation(folder: Path) -> Path:
    """Write a config of two variants and two seeds on the smallest model."""
    model = yaml.safe_load((ROOT / "configs" / "model" / "tiny.yaml").read_text())
    for key, value in MODEL.items():
        *parents, last = ("network." + key).split(".")
        place = model
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    settings = {
        "variants": {
            "full": {"title": "full"},
            "controlnet": {
                "title": "CDiff",
                "network": {"method": "controlnet"},
                "shares": {"hoi": 1, "object": 0},
            },
        },
        "seeds": [0, 1],
        "image": {
            "stage": "image",
            "dataset": "benchmark",
            "model": str(folder / "model.yaml"),
            "batch": {"clips": 1, "frames": 2},
            "iterations": 2,
            "memory_estimate": False,
            "threads": 1,
        },
        "tests": {
            "seen": {"dataset": "benchmark"},
            "unseen": {"dataset": "benchmark" + UNSEEN},
            "alone": {"dataset": "benchmark" + UNSEEN, "of": "objects"},
        },
        "sampling": {"num_frames": 3, "stride": 1, "num_inference_steps": 1},
        "metrics": {"fid_frames": 2},
        "claims": [{"better": "full", "worse": "controlnet", "test": "seen", "area": "hidden_fingers"}],
    }
    (folder / "ablate.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder / "ablate.yaml"
