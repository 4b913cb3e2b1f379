// The HTTP server: listens, gives each client a connection, drains.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <string>
#include <unordered_map>

#include "server/service.h"

namespace llorch {

class Connection;

// One io thread: the one that calls run(). The engine must outlive the server.
class Server {
 public:
  Server(ServerOptions options, ServedModel model, std::shared_ptr<const Tokenizer> tokenizer, Engine& engine,
         const Logger& log);
  ~Server();

  // Binds and listens; returns the address, with the port that was chosen. Throws Error if the address is refused (see
  // check_bind_address) or taken. From here on SIGINT and SIGTERM are the server's.
  boost::asio::ip::tcp::endpoint listen();

  // Serves until the drain is over; an engine that is broken (Engine::broken()) begins one. True if every job had its
  // time, false if stop_now() or a second signal cut it short.
  bool run();

  // Any thread. drain: no new jobs; running ones have drain_timeout to end, then they are cancelled; /health and
  // /cancel are answered until the last one has ended. SIGINT and SIGTERM do the same; a second one stops now.
  void drain();
  void stop_now();

 private:
  void accept();
  void start(boost::asio::ip::tcp::socket socket);
  void wait_for_signal();
  void watch_engine();
  void begin_drain();
  void close_when_idle();
  void close_connections(bool only_idle);

  // Coroutines that are left when the server goes are destroyed with io_, so what they refer to stands before it.
  ServerOptions options_;
  ServedModel model_;
  const Logger& log_;
  Service service_;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections_;
  boost::asio::io_context io_{1};
  boost::asio::ip::tcp::acceptor acceptor_{io_};
  boost::asio::steady_timer accept_pause_{io_};
  boost::asio::signal_set signals_{io_};
  boost::asio::steady_timer drain_timer_{io_}, watch_timer_{io_};
  bool step_hangs_ = false;  // as last seen by watch_engine()
  bool cut_short_ = false;
};

}  // namespace llorch
