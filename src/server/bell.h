// What wakes the io thread when the engine has something for its connections.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <mutex>
#include <vector>

namespace llorch {

class Channel;

// Wakes the io thread once for all channels that have got something in the meantime: a step of the engine gives each
// of its sequences a token.
class Bell {
 public:
  explicit Bell(boost::asio::io_context& io) : io_(io) {}

  void ring(std::shared_ptr<Channel> channel);  // any thread, while the io_context lives

 private:
  void answer();  // io thread

  boost::asio::io_context& io_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Channel>> ringing_;
  bool answer_posted_ = false;
  std::vector<std::shared_ptr<Channel>> answered_;  // io thread; empty but while answer() runs
};

}  // namespace llorch
