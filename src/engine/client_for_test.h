// A client of an engine in tests: submits a request, checks the order of its events, waits for the end.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "engine/fake_program_for_test.h"

namespace llorch {

class Client {
 public:
  // on_event is called on the engine thread after the event is recorded.
  Client(Engine& engine, Request request, std::function<void(const Event&)> on_event = {})
      : state_(std::make_shared<State>()) {
    id_ = engine.submit(std::move(request), [state = state_, on_event](const Event& event) {
      state->add(event);
      if (on_event) on_event(event);
    });
  }

  RequestId id() const { return id_; }

  // The last event, once it is there.
  const Event& wait() const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->ended; });
    return state_->events.back();
  }

  // Waits until n tokens (or the end) are there.
  void wait_for_tokens(size_t n) const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->ended || state_->tokens.size() >= n; });
  }

  // Valid after wait().
  const std::vector<int32_t>& tokens() const { return state_->tokens; }
  size_t n_events() const { return state_->events.size(); }
  bool started() const { return std::holds_alternative<StartEvent>(state_->events.front()); }

  // Waits; the code of the FailEvent, or "" after a FinishEvent.
  std::string code() const {
    const auto* failed = std::get_if<FailEvent>(&wait());
    return failed != nullptr ? std::string(to_string(failed->code)) : "";
  }
  FailEvent failure() const { return std::get<FailEvent>(wait()); }
  FinishEvent finish() const { return std::get<FinishEvent>(wait()); }
  FakeResult result() const {
    const FinishReason reason = finish().reason;
    return {tokens(), reason};
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Event> events;
    std::vector<int32_t> tokens;
    bool ended = false;

    void add(const Event& event) {
      const std::lock_guard lock(mutex);
      EXPECT_FALSE(ended) << "an event after the last one";
      if (std::holds_alternative<StartEvent>(event)) {
        EXPECT_TRUE(events.empty());
      } else if (const auto* token = std::get_if<TokenEvent>(&event)) {
        EXPECT_FALSE(events.empty());
        EXPECT_EQ(token->index, tokens.size());
        tokens.push_back(token->id);
      } else {
        ended = true;
        if (const auto* finish = std::get_if<FinishEvent>(&event)) {
          EXPECT_FALSE(events.empty());
          EXPECT_EQ(finish->tokens_out, tokens.size());
        }
      }
      events.push_back(event);
      changed.notify_all();
    }
  };
  std::shared_ptr<State> state_;
  RequestId id_;
};

}  // namespace llorch
