#include "common/telemetry/registry.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "common/check.h"

namespace switchyard::telemetry {
namespace internal {

struct GaugeTag {
  using Metric = prometheus::Gauge;
};
struct CounterTag {
  using Metric = prometheus::Counter;
};
struct HistogramTag {
  using Metric = prometheus::Histogram;
};

// Part of a family that does not depend on the metric's type.
struct AnyFamily {
  virtual ~AnyFamily() = default;
  virtual int RemoveMatching(const std::vector<LabelMatch>& match) = 0;
  MetricInfo info;
};

template <typename Tag>
struct FamilyState : AnyFamily {
  using Metric = typename Tag::Metric;

  // Runs `use` on the series under the lock, so that it cannot be removed meanwhile.
  template <typename Use>
  void With(const LabelValues& values, Use use) {
    SWITCHYARD_CHECK(values.size() == info.labels.size(), info.name.c_str());
    absl::MutexLock lock(&mutex);
    auto [it, added] = series.try_emplace(values, nullptr);
    if (added) {
      prometheus::Labels labels;
      for (size_t i = 0; i < values.size(); ++i) labels[info.labels[i]] = values[i];
      if constexpr (std::is_same_v<Tag, HistogramTag>) {
        it->second = &family->Add(labels, buckets);
      } else {
        it->second = &family->Add(labels);
      }
    }
    use(*it->second);
  }

  void Remove(const LabelValues& values) {
    absl::MutexLock lock(&mutex);
    const auto it = series.find(values);
    if (it == series.end()) return;
    family->Remove(it->second);
    series.erase(it);
  }

  int RemoveMatching(const std::vector<LabelMatch>& match) override {
    std::vector<std::pair<size_t, std::string>> wanted;
    for (const auto& [name, value] : match) {
      const auto it = std::find(info.labels.begin(), info.labels.end(), name);
      if (it == info.labels.end()) return 0;
      wanted.emplace_back(it - info.labels.begin(), value);
    }
    absl::MutexLock lock(&mutex);
    int removed = 0;
    for (auto it = series.begin(); it != series.end();) {
      const bool matches = std::all_of(wanted.begin(), wanted.end(), [&](const auto& w) {
        return it->first[w.first] == w.second;
      });
      if (!matches) {
        ++it;
        continue;
      }
      family->Remove(it->second);
      it = series.erase(it);
      ++removed;
    }
    return removed;
  }

  prometheus::Family<Metric>* family = nullptr;
  std::vector<double> buckets;
  absl::Mutex mutex;
  std::map<LabelValues, Metric*> series ABSL_GUARDED_BY(mutex);
};

}  // namespace internal

void Gauge::Set(double value, const LabelValues& labels) const {
  state_->With(labels, [&](auto& metric) { metric.Set(value); });
}
void Gauge::Add(double delta, const LabelValues& labels) const {
  state_->With(labels, [&](auto& metric) { metric.Increment(delta); });
}
void Gauge::Remove(const LabelValues& labels) const { state_->Remove(labels); }

void Counter::Increment(double by, const LabelValues& labels) const {
  state_->With(labels, [&](auto& metric) { metric.Increment(by); });
}
void Counter::Remove(const LabelValues& labels) const { state_->Remove(labels); }

void Histogram::Observe(double value, const LabelValues& labels) const {
  state_->With(labels, [&](auto& metric) { metric.Observe(value); });
}
void Histogram::Touch(const LabelValues& labels) const {
  state_->With(labels, [](auto&) {});
}
void Histogram::Remove(const LabelValues& labels) const { state_->Remove(labels); }

struct Registry::State {
  std::shared_ptr<prometheus::Registry> prometheus = std::make_shared<prometheus::Registry>();
  mutable absl::Mutex mutex;
  std::vector<std::unique_ptr<internal::AnyFamily>> families ABSL_GUARDED_BY(mutex);

  void Declare(std::unique_ptr<internal::AnyFamily> family) {
    const std::string& name = family->info.name;
    SWITCHYARD_CHECK(absl::StartsWith(name, "switchyard_"), name.c_str());
    SWITCHYARD_CHECK(absl::EndsWith(name, "_total") == (family->info.type == MetricType::kCounter),
                     name.c_str());
    SWITCHYARD_CHECK(!family->info.help.empty(), name.c_str());
    absl::MutexLock lock(&mutex);
    for (const auto& other : families) SWITCHYARD_CHECK(other->info.name != name, name.c_str());
    families.push_back(std::move(family));
  }

  template <typename Tag>
  internal::FamilyState<Tag>* Add(MetricInfo info, prometheus::Family<typename Tag::Metric>& family,
                                  std::vector<double> buckets = {}) {
    auto state = std::make_unique<internal::FamilyState<Tag>>();
    state->info = std::move(info);
    state->family = &family;
    state->buckets = std::move(buckets);
    auto* raw = state.get();
    Declare(std::move(state));
    // A series without labels exists from the start: 0 is a statement, absence is not.
    if (raw->info.labels.empty()) raw->With({}, [](auto&) {});
    return raw;
  }
};

Registry::Registry() : state_(std::make_unique<State>()) {}
Registry::~Registry() = default;

Gauge Registry::AddGauge(const std::string& name, const std::string& help,
                         std::vector<std::string> labels) {
  Gauge handle;
  handle.state_ = state_->Add<internal::GaugeTag>(
      {name, MetricType::kGauge, std::move(labels), help},
      prometheus::BuildGauge().Name(name).Help(help).Register(*state_->prometheus));
  return handle;
}

Counter Registry::AddCounter(const std::string& name, const std::string& help,
                             std::vector<std::string> labels) {
  Counter handle;
  handle.state_ = state_->Add<internal::CounterTag>(
      {name, MetricType::kCounter, std::move(labels), help},
      prometheus::BuildCounter().Name(name).Help(help).Register(*state_->prometheus));
  return handle;
}

Histogram Registry::AddHistogram(const std::string& name, const std::string& help,
                                 std::vector<double> buckets, std::vector<std::string> labels) {
  Histogram handle;
  handle.state_ = state_->Add<internal::HistogramTag>(
      {name, MetricType::kHistogram, std::move(labels), help},
      prometheus::BuildHistogram().Name(name).Help(help).Register(*state_->prometheus),
      std::move(buckets));
  return handle;
}

std::vector<MetricInfo> Registry::Describe() const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<MetricInfo> result;
  for (const auto& family : state_->families) result.push_back(family->info);
  return result;
}

int Registry::RemoveSeries(const std::vector<LabelMatch>& match) const {
  absl::MutexLock lock(&state_->mutex);
  int removed = 0;
  for (const auto& family : state_->families) removed += family->RemoveMatching(match);
  return removed;
}

std::string Registry::Serialize() const {
  return prometheus::TextSerializer().Serialize(state_->prometheus->Collect());
}

std::vector<double> LatencyBuckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
}

std::vector<double> DurationBuckets() {
  return {1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200};
}

}  // namespace switchyard::telemetry
