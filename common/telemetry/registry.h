// Metrics of one process: typed families, one declaration each, and their text for Prometheus.
//
// The coordinator's report room and the agent declare their series here once, at start; this is the
// only file that knows prometheus-cpp. Names start with "switchyard_", use base
// units (_seconds, _bytes, _ratio) and counters end in _total; a declaration that breaks this
// aborts, it is a programmer's error. Label values must be bounded: never a path, a step or a
// user's text.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace switchyard::telemetry {

enum class MetricType { kGauge, kCounter, kHistogram };

// What a series is, as declared.
struct MetricInfo {
  std::string name;
  MetricType type;
  std::vector<std::string> labels;  // names, in order
  std::string help;
};

// Label values of one series, in the order of the declared names; their number must match.
using LabelValues = std::vector<std::string>;
// Name and value.
using LabelMatch = std::pair<std::string, std::string>;

namespace internal {
template <typename Metric>
struct FamilyState;
struct GaugeTag;
struct CounterTag;
struct HistogramTag;
}  // namespace internal

// Handles are cheap to copy and live as long as their Registry. All of them are thread-safe.
class Gauge {
 public:
  void Set(double value, const LabelValues& labels = {}) const;
  void Add(double delta, const LabelValues& labels = {}) const;
  // Drops one series; nothing happens when it does not exist.
  void Remove(const LabelValues& labels) const;

 private:
  friend class Registry;
  internal::FamilyState<internal::GaugeTag>* state_ = nullptr;
};

class Counter {
 public:
  // `by` must not be negative.
  void Increment(double by = 1, const LabelValues& labels = {}) const;
  void Remove(const LabelValues& labels) const;

 private:
  friend class Registry;
  internal::FamilyState<internal::CounterTag>* state_ = nullptr;
};

class Histogram {
 public:
  void Observe(double value, const LabelValues& labels = {}) const;
  // The series exists from now on, without an observation: Prometheus sees the first one only if it
  // saw the series before.
  void Touch(const LabelValues& labels) const;
  void Remove(const LabelValues& labels) const;

 private:
  friend class Registry;
  internal::FamilyState<internal::HistogramTag>* state_ = nullptr;
};

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  Gauge AddGauge(const std::string& name, const std::string& help,
                 std::vector<std::string> labels = {});
  Counter AddCounter(const std::string& name, const std::string& help,
                     std::vector<std::string> labels = {});
  // `buckets`: upper bounds, growing, in the unit of the name.
  Histogram AddHistogram(const std::string& name, const std::string& help,
                         std::vector<double> buckets, std::vector<std::string> labels = {});

  // Every declared family, in order of declaration.
  std::vector<MetricInfo> Describe() const;
  // Drops, in every family that has all labels named by `match`, the series that carry these
  // values: RemoveSeries({{"project", "default"}, {"job", "demo"}}) forgets a job. Returns how many
  // went.
  int RemoveSeries(const std::vector<LabelMatch>& match) const;
  // Prometheus text exposition format 0.0.4.
  std::string Serialize() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 1 ms to 60 s, for RPCs and store transactions.
std::vector<double> LatencyBuckets();
// 1 s to 2 h, for checkpoints, queueing and recovery.
std::vector<double> DurationBuckets();

}  // namespace switchyard::telemetry
