"""The command line: wrong usage costs one line and no server; a flow's result is the last line of stdout."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.console import print_table, reporting

VERBS = [
    "build",
    "ingest",
    "synthesize",
    "benchmark",
    "ablate",
    "human",
    "convert",
    "train",
    "generate",
    "evaluate",
    "demo",
    "store",
    "licences",
    "doctor",
]
SMALL = ("--set", "num_frames=3", "--set", "layers.size=32", "--set", "six_views.size=32")


def manivideo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_line(result: Result) -> str:
    """The one line on stderr."""
    (line,) = result.stderr.splitlines()
    return line


def test_help_lists_every_verb_without_loading_torch_or_prefect() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "print('loaded:', {'torch', 'prefect', 'diffusers', 'zarr'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert all(verb in output for verb in VERBS)
    assert "loaded: set()" in output


def test_an_unknown_key_is_named_with_the_one_that_was_meant(objects: Path) -> None:
    result = manivideo("build", "--objects", objects, "--set", "layers.sise=32")
    assert result.exit_code == 2
    assert "'layers.sise'" in error_line(result)
    assert "did you mean 'size'" in error_line(result)


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped, reporting(debug=False):
        raise KeyboardInterrupt("stopped after step 7; resume from outputs/image")
    assert stopped.value.exit_code == 130
    assert "stopped after step 7; resume from outputs/image" in capsys.readouterr().err


def test_objects_of_a_folder_and_of_objaverse_are_not_mixed(objects: Path) -> None:
    result = manivideo("build", "--objects", objects, "--lvis", "mug,knife")
    assert result.exit_code == 2
    assert "of a folder or of Objaverse, not both" in error_line(result)


def test_a_setting_of_objaverse_alone_chooses_no_objects() -> None:
    result = manivideo("build", "--set", "objaverse.seed=3")
    assert result.exit_code == 2
    assert "which objects?" in error_line(result)


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = manivideo("convert", "taco", tmp_path / "none.npz", "-o", tmp_path / "sessions")
    assert result.exit_code == 2
    assert "none.npz" in error_line(result)


def test_a_value_of_the_wrong_type_is_named(objects: Path) -> None:
    result = manivideo("build", "--objects", objects, "--set", "num_frames=many")
    assert result.exit_code == 2
    assert "num_frames" in error_line(result)
    assert "many" in error_line(result)


def test_an_unknown_kind_of_record_is_wrong_usage(objects: Path) -> None:
    result = manivideo("build", "--objects", objects, "--only", "objects,latents")
    assert result.exit_code == 2
    assert "latents" in error_line(result)


def test_a_missing_session_is_wrong_usage(tmp_path: Path) -> None:
    result = manivideo("ingest", tmp_path / "nothing")
    assert result.exit_code == 2
    assert f"{tmp_path / 'nothing'}: no such folder" in error_line(result)


def test_a_missing_config_is_wrong_usage(tmp_path: Path) -> None:
    result = manivideo("build", tmp_path / "nothing.yaml")
    assert result.exit_code == 2
    assert "nothing.yaml" in error_line(result)


def test_generate_wants_a_clip_or_a_motion(tmp_path: Path) -> None:
    result = manivideo("generate", "--model", tmp_path, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 2
    assert "--clip" in error_line(result)


@pytest.mark.parametrize("option", ["--camera", "--object", "--background", "--first-object", "--keypoints"])
def test_what_goes_with_a_motion_does_not_go_with_a_clip(option: str, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    result = manivideo("generate", "--model", tmp_path, "--clip", "a/b", option, "mine", "-o", out)
    assert result.exit_code == 2
    assert option in error_line(result)


@pytest.mark.parametrize("verb", ["status", "verify", "gc"])
def test_a_store_that_is_not_there_is_neither_counted_nor_made(verb: str, tmp_path: Path) -> None:
    result = manivideo("store", verb, "--store", tmp_path / "typo")
    assert result.exit_code == 2
    assert "typo: no such folder" in error_line(result)
    assert not (tmp_path / "typo").exists()


def test_brackets_in_a_reason_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[/a]", ("reason",), [("found [/b]",)])
    printed = capsys.readouterr().out
    assert "[/a]" in printed
    assert "[/b]" in printed


def test_a_dataset_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    result = manivideo("licences", "cups", "--store", tmp_path)
    assert result.exit_code == 1
    assert "'cups'" in error_line(result)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = manivideo("licences", "cups", "--store", tmp_path, "--debug")
    assert result.exit_code == 1
    assert result.exc_info is not None
    assert result.exc_info[2].tb_next is not None


def test_what_the_project_warns_of_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with reporting(debug=False):
            logging.getLogger("model.data").warning("3 clips of %s:\nleft out", "[bold]")
            logging.getLogger("model.data").info("nothing to say")
            logging.getLogger("elsewhere").error("not ours")
    assert capsys.readouterr().err == "manivideo: 3 clips of [bold]: left out\n"


def test_doctor_takes_paths_as_training_does(tmp_path: Path) -> None:
    original = tmp_path / "mm.ckpt"
    original.touch()
    options = ("--stable-diffusion", tmp_path / "none", "--motion-modules", original, "--json")
    found = json.loads(manivideo("doctor", *options).stdout.splitlines()[-1])
    assert found["SD 1.5 weights"]["found"] == f"{tmp_path / 'none'}: no such folder, and no hub id"
    assert found["AnimateDiff weights"]["present"]


def test_doctor_looks_into_mano_files(tmp_path: Path) -> None:
    for name in ("MANO_LEFT.pkl", "MANO_RIGHT.pkl"):
        (tmp_path / name).write_bytes(b"<!DOCTYPE html>")
    result = manivideo("doctor", "--mano", tmp_path, "--json")
    check = json.loads(result.stdout.splitlines()[-1])["MANO files"]
    assert not check["present"]
    assert "MANO_LEFT.pkl: " in check["found"]


def test_doctor_says_what_to_do(tmp_path: Path) -> None:
    result = manivideo("doctor", "--mano", tmp_path, "--stable-diffusion", tmp_path, "--json")
    checks = json.loads(result.stdout.splitlines()[-1])
    assert not checks["MANO files"]["present"]
    assert "MANO_LEFT.pkl" in checks["MANO files"]["found"]
    assert "no UNet, VAE, text encoder, tokenizer" in checks["SD 1.5 weights"]["found"]
    assert {"LPIPS weights", "FID weights", "hand-joint detector"} <= checks.keys()
    assert checks["ffmpeg"]["present"]
    assert all(check["advice"] for check in checks.values() if not check["present"])


@pytest.mark.usefixtures("prefect_server")
def test_a_build_ends_with_one_json_line_and_a_second_builds_nothing(objects: Path, tmp_path: Path) -> None:
    arguments = ("build", "--objects", objects, "--store", tmp_path / "store", *SMALL, "--json")
    first, second = manivideo(*arguments), manivideo(*arguments)
    assert first.exit_code == second.exit_code == 0
    told = json.loads(first.stdout.splitlines()[-1])
    assert told["built"] == {"frames": 2, "layers": 2, "object": 2}
    assert [(entry["input"], entry["code"]) for entry in told["quarantined"]] == [
        ("object:torn", "truncated")
    ]
    assert json.loads(second.stdout.splitlines()[-1])["built"] == {}
    assert {"built", "cached", "quarantined", "seconds"} <= told.keys()


@pytest.mark.usefixtures("prefect_server")
def test_nothing_usable_fails_in_one_line(tmp_path: Path, objects: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = manivideo("build", "--objects", empty, "--store", tmp_path / "store", *SMALL)
    assert result.exit_code == 1
    assert "no .glb" in error_line(result)
    for kind in ("mug", "box"):
        (objects / f"{kind}.glb").unlink()
    result = manivideo("build", "--objects", objects, "--store", tmp_path / "store", *SMALL)
    assert result.exit_code == 1
    assert "nothing usable" in result.stderr


@pytest.mark.usefixtures("prefect_server")
def test_the_store_can_be_counted_verified_and_cleaned(objects: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert manivideo("build", "--objects", objects, "--store", store, *SMALL).exit_code == 0
    status = json.loads(manivideo("store", "status", "--store", store, "--json").stdout)
    assert [(kind, status[kind]["records"]) for kind in ("frames", "layers", "object")] == [
        ("frames", 2),
        ("layers", 2),
        ("object", 2),
    ]
    assert manivideo("store", "verify", "--store", store).exit_code == 0
    (store / "datasets" / "objects.jsonl").unlink()
    dropped = json.loads(manivideo("store", "gc", "--store", store, "--json").stdout)
    assert dropped["object"]["records"] == 2
    status = json.loads(manivideo("store", "status", "--store", store, "--json").stdout)
    assert sum(usage["records"] for usage in status.values()) == 0


@pytest.mark.usefixtures("prefect_server")
def test_a_damaged_record_fails_verification(objects: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert manivideo("build", "--objects", objects, "--store", store, *SMALL).exit_code == 0
    chunk = max((store / "layers").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    result = manivideo("store", "verify", "--store", store)
    assert result.exit_code == 1
    assert "layers" in result.stdout
