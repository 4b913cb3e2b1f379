// The jobs that are running: by name, for /cancel, and as objects that end with their connection.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "engine/engine.h"

namespace llorch {

class Bell;
class Channel;
class Job;

// All of it belongs to the io thread.
class Jobs {
 public:
  bool contains(const std::string& job_id) const { return running_.count(job_id) != 0; }
  bool empty() const { return running_.empty(); }
  uint32_t waiting() const;                // submitted, and nothing heard of yet
  void cancel(const std::string& job_id);  // unknown ones are ignored
  void cancel_all();
  void abandon_all();  // their events go nowhere from now on; coroutines that wait for them are destroyed

  std::function<void()> on_empty;  // called when the last job has ended

 private:
  friend class Job;
  std::unordered_map<std::string, Job*> running_;
};

// One request in the engine. Ends with this object: if it still runs it is cancelled, and its later events are dropped.
class Job {
 public:
  Job(Jobs& jobs, Engine& engine, Bell& bell, std::string job_id, Request request);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void cancel() { engine_.cancel(id_); }
  const std::shared_ptr<Channel>& channel() const { return channel_; }
  const std::string& job_id() const { return job_id_; }
  RequestId request_id() const { return id_; }

 private:
  Jobs& jobs_;
  Engine& engine_;
  std::string job_id_;
  std::shared_ptr<Channel> channel_;
  RequestId id_;
};

}  // namespace llorch
