"""Alert rules and dashboards: valid, tested, documented, and made of metrics that exist."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
VENV = pathlib.Path(os.environ.get("SWITCHYARD_VENV", ROOT / ".venv"))
MONITORING = ROOT / "deploy/monitoring"
RULES = MONITORING / "switchyard.rules.yml"
TESTS = MONITORING / "switchyard.rules.test.yml"

_METRIC = re.compile(r"(?<![\w:$])(switchyard(?::[a-z0-9_]+)*(?:_[a-z0-9_]+)?(?::[a-z0-9_]+)*)")


def program(name):
    """Returns the path of prometheus or promtool."""
    path = shutil.which(name) or VENV / "prometheus/usr/bin" / name
    if not pathlib.Path(path).exists():
        pytest.fail(f"{name} is not here: tools/setup.sh --tests gets it")
    return str(path)


def groups():
    return yaml.safe_load(RULES.read_text())["groups"]


def alerts():
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def documented():
    """Returns the series of docs/metrics.md."""
    return set(re.findall(r"^\| `(switchyard_[a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))


def used(expression):
    """Returns the metrics in a PromQL expression; a histogram's parts count as the histogram."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    names = {name for name in _METRIC.findall(without_strings) if not name.endswith(":")}
    known = documented()
    return {name if name in known else re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def boards():
    return {path.name: json.loads(path.read_text()) for path in sorted((MONITORING / "dashboards").glob("*.json"))}


def queries(board):
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def test_promtool_accepts_the_rules_and_the_configuration():
    # The files of the second one are made where it is used.
    for command in (["check", "rules", str(RULES)], ["check", "config", str(MONITORING / "prometheus.yml")],
                    ["check", "config", "--syntax-only", str(MONITORING / "prometheus_tls.yml")]):  # fmt: skip
        done = subprocess.run([program("promtool"), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_alone_where_it_should_and_is_quiet_where_it_should():
    done = subprocess.run([program("promtool"), "test", "rules", str(TESTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [case["name"] for case in yaml.safe_load(TESTS.read_text())["tests"]]
    for alert in alerts():
        assert f"{alert} fires" in names, f"{alert} has no case in which it fires"
        assert any(name.startswith(f"{alert} is quiet") for name in names), f"{alert} has no case in which it is quiet"


def test_every_alert_has_a_runbook_entry_and_the_texts_that_people_read():
    operations = (ROOT / "docs/operations.md").read_text()
    headings = {heading.strip().lower() for heading in re.findall(r"^#+ (.+)$", operations, re.MULTILINE)}
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert alert["annotations"]["summary"] and alert["annotations"]["description"], name
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert name.lower() in headings, f"docs/operations.md has no entry {name}"
    written = {heading for heading in headings if re.fullmatch(r"switchyard[a-z]+", heading)}
    assert written == {name.lower() for name in alerts()}, "an entry for an alert that does not exist"


def test_rules_and_dashboards_use_only_metrics_that_are_documented():
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    sources = {f"rule {rule.get('alert') or rule['record']}": rule["expr"] for group in groups() for rule in group["rules"]}
    for name, board in boards().items():
        sources.update({f"{name}: {expression}": expression for expression in queries(board)})
    missing = {source: used(text) - documented() - recorded for source, text in sources.items()}
    assert {source: names for source, names in missing.items() if names} == {}
    found = set().union(*(used(text) for text in sources.values()))
    assert len(found) > 40, "the pattern for metrics does not see them"
    assert recorded - found == set(), "a recording rule that nothing uses"


def test_the_committed_dashboards_are_what_the_source_makes(tmp_path):
    made = subprocess.run(
        [sys.executable, "-B", str(MONITORING / "make_dashboards.py"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(boards())
    for path in tmp_path.iterdir():
        committed = (MONITORING / "dashboards" / path.name).read_text()
        assert path.read_text() == committed, f"{path.name}: run .venv/bin/python deploy/monitoring/make_dashboards.py"


def test_every_panel_asks_the_chosen_data_source_and_has_a_place_of_its_own():
    uids = [board["uid"] for board in boards().values()]
    assert len(uids) == len(set(uids)) == 4
    for name, board in boards().items():
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        cells = set()
        for panel in panels:
            assert panel["datasource"]["uid"] == "${datasource}", (name, panel["title"])
            place = panel["gridPos"]
            mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not mine & cells and place["x"] + place["w"] <= 24, (name, panel["title"])
            cells |= mine
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids)), name
