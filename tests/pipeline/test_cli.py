from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deepssim.cli import COMMANDS, cli


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from deepssim.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'onnxruntime', 'pandas', 'pyarrow', 'numpy', 'rich', 'PIL', 'jinja2')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example_or_a_paragraph(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 200
    assert "\\b" not in result.output


@pytest.mark.parametrize("name", ["audit", "score"])
def test_the_options_of_a_search_have_the_defaults_of_the_library(name):
    from deepssim.matching import MatchOptions

    command = cli.get_command(None, name)
    shown = {parameter.name: parameter.default for parameter in command.params}
    wanted = asdict(MatchOptions())
    for option in ("k", "max_per_group", "max_listed", "seed", "threads"):
        assert shown[option] == wanted[option], option


def test_words_of_options_may_be_joined_by_underscores(deepssim, cohort, tmp_path):
    done = deepssim("embed", cohort.real, "--out", tmp_path / "s", "--group_by", "parent", "--max_skipped", "0", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_audit_speaks_json_on_stdout_and_progress_on_stderr(deepssim, cohort, tmp_path):
    done = deepssim("audit", cohort.real, cohort.synthetic, "--out", tmp_path / "out", "--group-by", "parent", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert Path(value["report"]).is_file()
    assert value["summary"]["synthetic_flagged"]["flagged"] == len(cohort.copies)
    assert "synthetic images" in done.stderr
    assert deepssim("info", tmp_path / "out").returncode == 0
    assert deepssim("info", tmp_path / "out" / "real.store", "--json").returncode == 0
    again = deepssim("report", tmp_path / "out", "--no-images", "--pseudonyms")
    assert again.returncode == 0, again.stderr
    text = Path(again.stdout.strip()).read_text(encoding="utf-8")
    assert "patient-000" not in text
    assert "copy-00.png" not in text


def test_exit_codes(deepssim, cohort, tmp_path):
    common = ("audit", cohort.real, cohort.synthetic, "--out", tmp_path / "out", "-q", "--views", "none")
    assert deepssim(*common, "--fail-above", "0.01").returncode == 3
    assert deepssim(*common, "--fail-above", "0.99").returncode == 0
    assert deepssim(*common, "--fail-above", "2").returncode == 2
    assert deepssim("audit", cohort.real, cohort.real, "--out", tmp_path / "x").returncode == 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    np.save(tmp_path / "bad" / "b.npy", np.arange(64, dtype=np.float32).reshape(8, 8))
    done = deepssim("audit", cohort.real, tmp_path / "bad", "--out", tmp_path / "y", "-q")
    assert done.returncode == 4
    assert (tmp_path / "y" / "report.html").is_file()
    assert deepssim("embed", tmp_path / "bad", "--out", tmp_path / "z", "-q").returncode == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "nowhere", "also-nowhere", "--out", "o"),
        ("embed", ".", "--out", "o", "--metric", "nonsense"),
        ("embed", ".", "--out", "o", "--slices", "sideways"),
        ("embed", ".", "--out", "o", "--group-by", "regex:("),
        ("score", "nowhere", "also", "--out", "o"),
        ("report", "nowhere"),
        ("info", "nowhere"),
        ("audit", "a", "b", "--out", "o", "--memory-limit", "lots"),
    ],
)
def test_errors_are_one_line_without_a_traceback(deepssim, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = deepssim(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")


def test_a_mistyped_option_is_corrected(deepssim, tmp_path):
    done = deepssim("audit", "a", "b", "--out", tmp_path, "--hold-out", "c")
    assert done.returncode == 2
    assert "--holdout" in done.stderr


def test_doctor_says_which_instruction_set_and_refuses_a_wrong_override(deepssim):
    assert json.loads(deepssim("doctor", "--json").stdout)["healthy"] is True
    assert json.loads(deepssim("doctor", "--json", DEEPSSIM_ISA="portable").stdout)["core"]["isa"] == "portable"
    wrong = deepssim("doctor", DEEPSSIM_ISA="mmx")
    assert wrong.returncode == 1
    assert "mmx" in wrong.stdout


def test_the_doctor_knows_every_provider_that_an_audit_would_use(monkeypatch):
    from deepssim import embed
    from deepssim.cli.doctor import examine

    class Fake:
        works = True

        def __init__(self, metric, *, device):
            assert device == "cpu"
            self.provider = embed.OPENVINO if self.works else embed.CPU

    monkeypatch.setattr(embed, "available_providers", lambda: [embed.OPENVINO, "AzureExecutionProvider", embed.CPU])
    monkeypatch.setattr(embed, "Encoder", Fake)
    found = examine()
    assert found["runtime"]["providers"] == {
        embed.OPENVINO: "loads", "AzureExecutionProvider": "there, not used by deepssim", embed.CPU: "loads"
    }  # fmt: skip
    assert found["healthy"]
    Fake.works = False
    found = examine()
    assert found["runtime"]["providers"][embed.OPENVINO].startswith("does not load: ONNX Runtime falls back to CPU")
    assert any(line.startswith(embed.OPENVINO) for line in found["advice"])


def test_the_doctor_looks_for_every_package_of_training():
    import re
    import tomllib

    from deepssim.cli.doctor import OPTIONAL

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[>=\[]", line)[0] for line in project["optional-dependencies"]["train"]} - {"deepssim"}
    assert wanted == {distribution for _, distribution, extra, _ in OPTIONAL if extra == "train"}


def test_the_demo_finds_what_was_planted(deepssim_here, tmp_path, monkeypatch):
    # A third of its people: as it is, whoever tries this package runs it.
    for name, n in {"N_REAL": 17, "N_HOLDOUT": 9, "N_UNSEEN": 10, "N_COPIES": 5}.items():
        monkeypatch.setattr(f"deepssim.demo.{name}", n)
    done = deepssim_here("demo", "--out", tmp_path / "demo", "--json", "-q")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    planted = {p["kind"]: p for p in value["planted"]}
    for kind in ("identical", "blurred and noisy", "mirrored and turned"):
        assert planted[kind]["flagged"] == planted[kind]["total"] == planted[kind]["source_right"]
    assert planted["locally changed"]["source_right"] == planted["locally changed"]["total"]
    assert planted["unrelated"]["flagged"] <= 0.01 * planted["unrelated"]["total"]
    assert value["summary"]["verdict"]["level"] == "copies"
