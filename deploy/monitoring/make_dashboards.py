#!/usr/bin/env python3
"""Writes the Grafana dashboards of Switchyard to dashboards/*.json beside this file; they are committed as written.

    .venv/bin/python deploy/monitoring/make_dashboards.py [DIRECTORY]

Panels are one line each below: title, query, legend, unit. Only metrics of docs/metrics.md and recording rules of
switchyard.rules.yml are used; tests check that, and that every query returns data of a running job.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableOption, VariableRefresh

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = '{project=~"$project", job=~"$job"}'
WHERE = 'project=~"$project", job=~"$job"'
WIDTH = 24


def query(expr, legend, number=0):
    """One Prometheus query; `number` is its place in the panel."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE).ref_id("ABCDEF"[number])


def figure(title, expr, unit="short", legend="", width=4):
    """A single number with its recent course."""
    return (
        stat.Panel().title(title).datasource(SOURCE).unit(unit).height(4).span(width).with_target(query(expr, legend))
    )


def chart(title, *queries, unit="short", width=12, stacked=False, least=None, note=""):
    """Lines over time; queries are (expr, legend) pairs."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(note)
        .datasource(SOURCE)
        .unit(unit)
        .height(8)
        .span(width)
        .line_width(1.5)
        .fill_opacity(40 if stacked else 6)
        .gradient_mode(GraphGradientMode.NONE)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if least is not None:
        panel = panel.min(least)
    for number, (expr, legend) in enumerate(queries):
        panel = panel.with_target(query(expr, legend, number))
    return panel


def heat(title, expr, legend, unit="s", width=12):
    """A histogram over time; `expr` gives increases of buckets by le."""
    target = query(expr, legend).format(PromQueryFormat.HEATMAP)
    return heatmap.Panel().title(title).datasource(SOURCE).unit(unit).height(8).span(width).with_target(target)


def variable(name, label, values, many=True):
    """A choice of label values."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(many)
        .include_all(many)
        .all_value(".*" if many else "")
    )
    return made.current(VariableOption(text="All", value="$__all", selected=True)) if many else made


def board(uid, title, note, sections, by_job):
    """A dashboard of sections, each a title and panels in order; `by_job` adds the choice of project and job."""
    made = (
        dashboard.Dashboard(f"Switchyard / {title}")
        .uid(f"switchyard-{uid}")
        .description(note)
        .tags(["switchyard"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Switchyard")
            .tags(["switchyard"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if by_job:
        made = made.with_variable(variable("project", "Project", "label_values(switchyard_job_state, project)"))
        made = made.with_variable(variable("job", "Job", 'label_values(switchyard_job_state{project=~"$project"}, job)'))
    number = 0
    for name, panels in sections:
        number += 1
        made = made.with_row(dashboard.Row(name).id(number))
        for panel in panels:
            number += 1
            made = made.with_panel(panel.id(number))
    return made.build()


def cluster():
    """Everything at a glance: jobs, slots, nodes, speed."""
    overview = [
        figure("Jobs running", 'sum(switchyard_job_state{state="RUNNING"})'),
        figure("Jobs waiting", "sum(switchyard_queue_depth)"),
        figure("Slots used", 'sum(switchyard_slots{use="used"}) / sum(switchyard_slots)', "percentunit"),
        figure("Nodes ready", 'sum(switchyard_nodes{state="ready"})'),
        figure("Tokens/s", "sum(switchyard_job_tokens_per_second and on (project, job) switchyard:job_running:bool)"),
        figure("Goodput, 1 h", "switchyard:cluster_goodput:ratio_1h", "percentunit"),
    ]
    jobs = [
        chart("Jobs by state", ('sum by (state) (switchyard_job_state) > 0', "{{state}}"), stacked=True, least=0),
        chart(
            "Tokens/s by job",
            ("switchyard_job_tokens_per_second and on (project, job) switchyard:job_running:bool", "{{project}}/{{job}}"),
            stacked=True,
            least=0,
        ),
        chart(
            "Wall time of all jobs by what it went into",
            ("sum by (bucket) (rate(switchyard_job_wall_seconds_total[5m]))", "{{bucket}}"),
            stacked=True,
            least=0,
            note="1 is one job's time; goodput is the share of productive.",
        ),
        chart("Goodput of each job, 1 h", ("switchyard:job_goodput:ratio_1h", "{{project}}/{{job}}"), unit="percentunit", least=0),
        chart("Jobs waiting", ("switchyard_queue_depth", "{{project}}"), stacked=True, least=0),
        chart(
            "Time in the queue, 95th percentile",
            ("histogram_quantile(0.95, sum by (le) (increase(switchyard_job_queue_seconds_bucket[1h])))", "p95"),
            unit="s",
            least=0,
        ),
    ]
    nodes = [
        chart("Slots by use", ("switchyard_slots", "{{use}}"), stacked=True, least=0),
        chart("Nodes by state", ("switchyard_nodes", "{{state}}"), stacked=True, least=0),
        chart("Nodes that are not ready", ('switchyard_node_state{state!="ready"}', "{{node}} {{state}}"), least=0),
        chart(
            "Time since the last heartbeat",
            ("time() - switchyard_node_last_heartbeat_timestamp_seconds", "{{node}}"),
            unit="s",
            least=0,
        ),
        chart("Slots used by node", ("switchyard_agent_slots_used / switchyard_agent_slots", "{{instance}}"), unit="percentunit", least=0),
        chart("Restarts", ("sum by (project, job) (increase(switchyard_job_restarts_total[10m]))", "{{project}}/{{job}}"), least=0),
    ]
    return board("cluster", "Cluster", "Jobs, slots and nodes.", [("Now", overview), ("Jobs", jobs), ("Nodes", nodes)], False)


def job():
    """One job: progress, loss, speed, memory, checkpoints."""
    now = [
        figure("Step", f"switchyard_job_step{JOB}"),
        figure("Done", f"switchyard_job_step{JOB} / switchyard_job_target_steps{JOB}", "percentunit"),
        figure("Ends in", f"switchyard_job_eta_seconds{JOB}", "s"),
        figure("Tokens/s", f"switchyard_job_tokens_per_second{JOB}"),
        figure("Attempt", f"switchyard_job_attempt{JOB}"),
        figure("Goodput, 1 h", f"switchyard:job_goodput:ratio_1h{JOB}", "percentunit"),
    ]
    learning = [
        chart("Loss", (f"switchyard_job_loss{JOB}", "{{job}} training"), (f"switchyard_job_eval_loss{JOB}", "{{job}} held-out")),
        chart("Gradient norm", (f"switchyard_job_grad_norm{JOB}", "{{job}}"), least=0),
        chart("Learning rate", (f"switchyard_job_learning_rate{JOB}", "{{job}}"), least=0),
        chart("Skipped steps", (f"increase(switchyard_job_skipped_steps_total{JOB}[10m])", "{{job}}"), least=0),
    ]
    speed = [
        chart(
            "Tokens/s against the plan",
            (f"switchyard_job_tokens_per_second{JOB}", "{{job}} measured"),
            (f"switchyard_job_predicted_tokens_per_second{JOB}", "{{job}} predicted"),
            least=0,
        ),
        chart("Tokens trained on per second, padding excluded", (f"rate(switchyard_job_tokens_total{JOB}[1m])", "{{job}}"), least=0),
        chart(
            "Where a step's time goes",
            (f"sum by (phase) (rate(switchyard_job_phase_seconds_total{JOB}[1m]))", "{{phase}}"),
            unit="percentunit",
            stacked=True,
            least=0,
            note="Seconds of each phase in a second of wall time, rank 0.",
        ),
        heat("Time of a step", f"sum by (le) (increase(switchyard_job_step_seconds_bucket{JOB}[1m]))", "{{le}}"),
    ]
    safety = [
        chart(
            "Memory of the rank that needs most",
            (f"switchyard_job_peak_memory_bytes{JOB}", "{{job}} peak"),
            (f"switchyard_job_planned_memory_bytes{JOB}", "{{job}} planned"),
            (f"switchyard_job_memory_capacity_bytes{JOB}", "{{job}} capacity"),
            unit="bytes",
            least=0,
        ),
        chart("Peak memory by rank", (f"switchyard_rank_peak_memory_bytes{JOB}", "rank {{rank}}"), unit="bytes", least=0),
        chart(
            "Steps since the newest checkpoint",
            (f"switchyard_job_step{JOB} - switchyard_job_checkpoint_step{JOB}", "{{job}}"),
            (f"switchyard_job_checkpoint_interval_steps{JOB}", "{{job}} interval"),
            least=0,
        ),
        chart("Checkpoints", (f"increase(switchyard_job_checkpoints_total{JOB}[10m])", "{{job}} in ten minutes"), least=0),
        chart("Time to save", (f"switchyard_job_last_save_seconds{JOB}", "{{job}}"), unit="s", least=0, width=6),
        chart("Size of a checkpoint", (f"switchyard_job_checkpoint_bytes{JOB}", "{{job}}"), unit="bytes", least=0, width=6),
        chart(
            "Wall time by what it went into",
            (f"sum by (bucket) (rate(switchyard_job_wall_seconds_total{JOB}[1m]))", "{{bucket}}"),
            unit="percentunit",
            stacked=True,
            least=0,
        ),
        chart("Restarts", (f"increase(switchyard_job_restarts_total{JOB}[10m])", "{{job}}"), least=0),
        chart(
            "Recovery, 95th percentile",
            (f"histogram_quantile(0.95, sum by (le) (increase(switchyard_job_recovery_seconds_bucket{JOB}[1h])))", "p95"),
            unit="s",
            least=0,
        ),
    ]
    sections = [("Now", now), ("Learning", learning), ("Speed", speed), ("Memory, checkpoints, recovery", safety)]
    return board("job", "Job", "Progress of jobs. switchyard report JOB has the same as one page.", sections, True)


def experts():
    """Routing: balance, entropy, idle experts."""
    routing = [
        figure("Busiest over mean", f"switchyard_job_expert_load_max_over_mean_ratio{JOB}", width=6),
        figure("Router entropy", f"switchyard_job_router_entropy_ratio{JOB}", "percentunit", width=6),
        figure("Idle experts", f"switchyard_job_dead_experts{JOB}", width=6),
        figure("Expert-parallel", f"switchyard_job_info{JOB}", legend="{{expert_parallel}} of {{ranks}} ranks, {{device}}", width=6),
        chart("Busiest expert over the mean, worst layer", (f"switchyard_job_expert_load_max_over_mean_ratio{JOB}", "{{job}}"), least=0),
        chart(
            "Router entropy over log(experts)",
            (f"switchyard_job_router_entropy_ratio{JOB}", "{{job}}"),
            unit="percentunit",
            note="1 is undecided; below one half most tokens go to few experts.",
        ),
        chart(
            "Busiest expert over the mean, by layer",
            (f"switchyard_job_layer_expert_load_max_over_mean_ratio{JOB}", "layer {{layer}}"),
            width=WIDTH,
            least=0,
            note="At the newest sample; switchyard experts JOB draws the matrix of layers and experts.",
        ),
        chart(
            "Load-balancing loss",
            (f"switchyard_job_aux_loss{JOB}", "{{job}}"),
            note="Before its coefficient.",
        ),
        chart("Idle experts over all layers", (f"switchyard_job_dead_experts{JOB}", "{{job}}"), least=0),
        chart(
            "Dispatch and combine in a second of wall time",
            (
                f'sum by (phase) (rate(switchyard_job_phase_seconds_total{{{WHERE}, phase=~"dispatch|combine|forward.*"}}[1m]))',
                "{{phase}}",
            ),
            unit="percentunit",
            stacked=True,
            least=0,
        ),
    ]
    return board("experts", "Experts", "How tokens are spread over experts.", [("Routing", routing)], True)


def control_plane():
    """Coordinator and agents themselves."""
    coordinator = [
        figure("Coordinator", 'max(up{job="switchyard-coordinator"})', width=6),
        figure("Version", "switchyard_build_info", legend="{{version}}", width=6),
        figure("Free disk", "switchyard_state_dir_free_bytes", "bytes", width=6),
        figure("Agents connected", "sum(switchyard_agent_connected)", width=6),
        chart("Calls", ("sum by (method) (rate(switchyard_rpcs_total[1m]))", "{{method}}"), unit="reqps", least=0),
        chart("Calls by code", ("sum by (code) (rate(switchyard_rpcs_total[1m]))", "{{code}}"), unit="reqps", least=0),
        chart(
            "Time of a call, 99th percentile",
            ("histogram_quantile(0.99, sum by (le, method) (rate(switchyard_rpc_seconds_bucket[5m])))", "{{method}}"),
            unit="s",
            least=0,
        ),
        chart("Open calls: watchers and agents", ("switchyard_rpcs_open", "{{method}}"), least=0),
        chart(
            "Writer thread and store, 99th percentile",
            ("switchyard:store_write_seconds:p99_5m", "make durable"),
            ("switchyard:writer_wait_seconds:p99_5m", "wait for the writer"),
            unit="s",
            least=0,
        ),
        chart(
            "Changes made durable",
            ("rate(switchyard_store_write_seconds_count[1m])", "changes/s"),
            ("rate(switchyard_store_errors_total[1m])", "errors/s"),
            least=0,
        ),
        chart("Free disk", ("switchyard_state_dir_free_bytes", "state directory"), unit="bytes", least=0),
    ]
    agents = [
        chart("Sessions", ("switchyard_agent_connected", "{{instance}}"), least=0),
        chart("Sessions lost", ("increase(switchyard_agent_sessions_lost_total[10m])", "{{instance}}"), least=0),
        chart("Attempts", ("switchyard_agent_attempts", "{{instance}}"), least=0),
        chart("Ranks that ended", ("sum by (outcome) (increase(switchyard_agent_rank_ends_total[10m]))", "{{outcome}}"), least=0),
        chart(
            "Lost on the way",
            ("increase(switchyard_agent_reports_dropped_total[10m])", "{{instance}} reports"),
            ("increase(switchyard_agent_log_dropped_bytes_total[10m])", "{{instance}} log bytes"),
            ("increase(switchyard_agent_bad_lines_total[10m])", "{{instance}} bad lines"),
            least=0,
        ),
        chart("Results the coordinator has not acknowledged", ("switchyard_agent_results_unacknowledged", "{{instance}}"), least=0),
        chart(
            "Ranks started again",
            ("sum by (instance) (increase(switchyard_agent_rank_restarts_total[10m]))", "{{instance}}"),
            least=0,
        ),
    ]
    return board("control-plane", "Control plane", "The service itself.", [("Coordinator", coordinator), ("Agents", agents)], False)


BOARDS = {"cluster": cluster, "job": job, "experts": experts, "control_plane": control_plane}


def main():
    """Writes every dashboard."""
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "dashboards"
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in BOARDS.items():
        text = JSONEncoder(sort_keys=True, indent=1).encode(make())
        json.loads(text)
        (directory / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
