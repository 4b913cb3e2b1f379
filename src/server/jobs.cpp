// Registration by construction.
#include "server/jobs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "server/channel.h"

namespace llorch {

uint32_t Jobs::waiting() const {
  return static_cast<uint32_t>(std::count_if(running_.begin(), running_.end(),
                                             [](const auto& entry) { return !entry.second->channel()->started(); }));
}

void Jobs::cancel(const std::string& job_id) {
  const auto at = running_.find(job_id);
  if (at != running_.end()) at->second->cancel();
}

void Jobs::cancel_all() {
  for (const auto& [job_id, job] : running_) job->cancel();
}

void Jobs::abandon_all() {
  std::vector<std::shared_ptr<Channel>> channels;  // since jobs may end with the coroutines
  for (const auto& [job_id, job] : running_) channels.push_back(job->channel());
  for (const auto& channel : channels) channel->close();
}

Job::Job(Jobs& jobs, Engine& engine, Bell& bell, std::string job_id, Request request)
    : jobs_(jobs), engine_(engine), job_id_(std::move(job_id)), channel_(std::make_shared<Channel>(bell)) {
  LLORCH_CHECK(jobs_.running_.emplace(job_id_, this).second, "job {} runs already", job_id_);
  id_ = engine_.submit(std::move(request), channel_->sink());
}

Job::~Job() {
  engine_.cancel(id_);
  channel_->close();
  jobs_.running_.erase(job_id_);
  if (jobs_.running_.empty() && jobs_.on_empty) jobs_.on_empty();
}

}  // namespace llorch
