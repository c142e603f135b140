#!/usr/bin/env python3
"""Writes prometheus_rule.yaml, the rules of deploy/monitoring as an object of the Prometheus operator.

Run it after a change of the rules; a test compares the two.
"""

import pathlib

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[1] / "monitoring" / "switchyard.rules.yml"
HEAD = """\
# Made by make_prometheus_rule.py from deploy/monitoring/switchyard.rules.yml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: switchyard
spec:
"""


def prometheus_rule():
    """The object's text: the rules, indented beneath their new head; comments go with them."""
    lines = RULES.read_text().splitlines()
    start = lines.index("groups:")
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines[start:])


if __name__ == "__main__":
    (HERE / "prometheus_rule.yaml").write_text(prometheus_rule())
