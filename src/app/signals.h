// Ctrl-C and its relatives, for commands that must clean up.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <thread>

namespace llorch {

// From construction on, SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process.
class StopSignals {
 public:
  StopSignals() {
    signals_.async_wait([this](boost::system::error_code error, int) {
      if (!error) stopped_ = true;
    });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~StopSignals() {
    io_.stop();
    thread_.join();
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  const std::atomic<bool>& stopped() const { return stopped_; }

 private:
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_, SIGINT, SIGTERM, SIGHUP};
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace llorch
