// Listening, accepting, and the way to a clean end.
#include "server/server.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <cmath>
#include <csignal>
#include <utility>

#include "base/error.h"
#include "server/asio.h"
#include "server/auth.h"
#include "server/connection.h"

namespace llorch {

using asio::ip::tcp;

namespace {

constexpr std::chrono::seconds kCancelGrace{5};  // for the last events of jobs that a drain has cancelled
constexpr std::chrono::milliseconds kWatchInterval{100};
constexpr std::chrono::seconds kCloseGrace{2};  // for the last answers once no job is left

}  // namespace

Server::Server(ServerOptions options, ServedModel model, std::shared_ptr<const Tokenizer> tokenizer, Engine& engine,
               const Logger& log)
    : options_(std::move(options)),
      model_(std::move(model)),
      log_(log),
      service_{options_, model_, std::move(tokenizer), engine, log_, io_, Bell(io_), {}, false, false} {
  service_.jobs.on_empty = [this] {
    // Later, when the connection that ends its job has left the coroutine that owned it.
    if (service_.draining) asio::post(io_, [this] { close_when_idle(); });
  };
}

Server::~Server() {
  service_.jobs.on_empty = nullptr;
  service_.jobs.abandon_all();
}

tcp::endpoint Server::listen() {
  const tcp::endpoint wanted(check_bind_address(options_.host, options_.token), options_.port);
  error_code error;
  acceptor_.open(wanted.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(wanted, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) fail("cannot listen on {}:{}: {}", options_.host, options_.port, error.message());
  signals_.add(SIGINT, error);
  signals_.add(SIGTERM, error);
  wait_for_signal();
  return acceptor_.local_endpoint();
}

bool Server::run() {
  accept();
  watch_engine();
  io_.run();
  if (cut_short_) service_.jobs.abandon_all();
  return !cut_short_;
}

void Server::accept() {
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (!error) {
      start(std::move(socket));
      return accept();
    }
    // Out of file descriptors, as a rule: the listener stays, and tries again when some may be free.
    log_.warn("accept failed", {{"error", error.message()}});
    accept_pause_.expires_after(std::chrono::milliseconds(100));
    accept_pause_.async_wait([this](error_code) { accept(); });
  });
}

void Server::start(tcp::socket socket) {
  const bool too_many = connections_.size() >= options_.max_connections;
  if (connections_.size() >= options_.max_connections + 64) return;  // not even an answer
  auto connection = std::make_shared<Connection>(std::move(socket), service_);
  connections_.emplace(connection.get(), connection);
  const auto serve = [connection, too_many] { return too_many ? connection->turn_away() : connection->serve(); };
  asio::co_spawn(io_, serve, [this, key = connection.get()](std::exception_ptr) {
    connections_.erase(key);
    if (service_.closing && connections_.empty()) drain_timer_.cancel();
  });
}

void Server::wait_for_signal() {
  signals_.async_wait([this](error_code error, int) {
    if (error) return;
    if (service_.draining) return stop_now();
    begin_drain();
    if (!service_.closing) wait_for_signal();
  });
}

// A step that hangs is said in the log, once; /health says it while it lasts.
void Server::watch_engine() {
  const bool hangs = service_.unhealthy() == ErrorCode::kStepHangs;
  if (hangs && !step_hangs_) {
    log_.error("a step hangs", {{"code", to_string(ErrorCode::kStepHangs)},
                                {"step_ms", std::llround(service_.engine.stats().step_ms)}});
  }
  step_hangs_ = hangs;
  if (service_.engine.broken()) begin_drain();
  if (service_.closing) return;
  watch_timer_.expires_after(kWatchInterval);
  watch_timer_.async_wait([this](error_code error) {
    if (!error) watch_engine();
  });
}

void Server::drain() {
  asio::post(io_, [this] { begin_drain(); });
}

void Server::stop_now() {
  asio::post(io_, [this] {
    cut_short_ = true;
    io_.stop();
  });
}

void Server::begin_drain() {
  if (std::exchange(service_.draining, true)) return;
  log_.info("draining", {{"timeout_ms", options_.drain_timeout.count()}});
  close_when_idle();
  if (service_.closing) return;
  drain_timer_.expires_after(options_.drain_timeout);
  drain_timer_.async_wait([this](error_code error) {
    if (error) return;
    log_.warn("drain timeout: running jobs are cancelled");
    service_.jobs.cancel_all();
    drain_timer_.expires_after(kCancelGrace);
    drain_timer_.async_wait([this](error_code late) {
      if (!late) close_connections(false);
    });
  });
}

// The last job has ended: nothing keeps the listener and the connections that wait for a request. Connections that are
// being answered end after that, and with them io_.run().
void Server::close_when_idle() {
  if (!service_.jobs.empty() || std::exchange(service_.closing, true)) return;
  error_code ignored;
  acceptor_.close(ignored);
  accept_pause_.cancel();
  signals_.cancel(ignored);
  watch_timer_.cancel();
  drain_timer_.cancel();
  close_connections(true);
  if (connections_.empty()) return;
  drain_timer_.expires_after(kCloseGrace);
  drain_timer_.async_wait([this](error_code error) {
    if (!error) close_connections(false);
  });
}

void Server::close_connections(bool only_idle) {
  for (const auto& [key, weak] : connections_) {
    const auto connection = weak.lock();
    if (connection && (connection->idle() || !only_idle)) connection->close();
  }
}

}  // namespace llorch
