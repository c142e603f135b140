// Token buckets by key: so many a second, so many at once.
//
// One thread at a time. Keeps a bounded number of buckets; a full bucket says nothing and is
// dropped first.
#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "absl/time/time.h"

namespace switchyard::coordinator {

class RateLimiter {
 public:
  RateLimiter(double per_second, double burst) : per_second_(per_second), burst_(burst) {}

  // False when `key` has used up what it may at `now`.
  bool Take(const std::string& key, absl::Time now) {
    if (buckets_.size() >= kMaxBuckets && !buckets_.contains(key)) DropFull(now);
    Bucket& bucket = buckets_.try_emplace(key, Bucket{burst_, now}).first->second;
    bucket.left = LeftAt(bucket, now);
    bucket.time = now;
    if (bucket.left < 1) return false;
    bucket.left -= 1;
    return true;
  }

 private:
  static constexpr size_t kMaxBuckets = 4096;
  struct Bucket {
    double left;
    absl::Time time;
  };

  double LeftAt(const Bucket& bucket, absl::Time now) const {
    const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - bucket.time));
    return std::min(burst_, bucket.left + seconds * per_second_);
  }
  void DropFull(absl::Time now) {
    std::erase_if(buckets_, [&](const auto& entry) { return LeftAt(entry.second, now) >= burst_; });
    if (buckets_.size() >= kMaxBuckets) buckets_.clear();  // thousands at work: begin anew
  }

  const double per_second_;
  const double burst_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace switchyard::coordinator
