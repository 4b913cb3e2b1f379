// llorch serve: the worker. Device, verify, load, warm-up, bind, ready, callback.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "app/callback.h"
#include "app/commands.h"
#include "app/isolation_gate.h"
#include "app/load.h"
#include "app/model_path.h"
#include "app/recording.h"
#include "base/fault.h"
#include "engine/request_failure.h"
#include "server/auth.h"
#include "server/correlation.h"
#include "server/event_stream.h"
#include "server/server.h"
#include "trace/flight_recorder.h"

namespace llorch {
namespace {

struct ServeOptions {
  std::string worker_id, callback_url, log_level = "info", self_test = "auto";
  LoadOptions load;
  RecordOptions record;
  ServerOptions server;
  double request_timeout_s = 0;
  double drain_timeout_s = 30;
  double stall_timeout_s = 60;
};

std::chrono::milliseconds to_ms(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// The first words are what operators of the original system look for, whatever the device is.
void warm_up(Engine& engine, const std::string& backend, const Logger& log) {
  const double ms = engine.warm_up();
  log.info("GPU warmup complete", {{"duration_ms", ms}, {"backend", backend}});
  const std::string device = backend == "metal" ? "Metal GPU" : upper(backend);
  log.info(device + " warmup complete - ready for inference");
}

ServedModel served_model(const LoadedModel& loaded) {
  ServedModel out;
  out.name = loaded.config.name;
  out.backend = loaded.backend.name;
  out.device = loaded.backend.device;
  out.numerics = loaded.numerics;
  out.version = LLORCH_VERSION;
  out.vram_bytes = loaded.weights->bytes() + loaded.program->bytes();
  out.context = loaded.program->plan().context();
  out.eos = loaded.eos;
  return out;
}

// Its first bundle makes it read the model's files, and it writes what waits before it ends.
std::unique_ptr<FlightRecorder> make_recorder(const BundleFolder& folder, const LoadedModel& loaded,
                                              const ServeOptions& options, const EngineOptions& engine,
                                              const Logger& log) {
  auto make_origin = [origin = origin_of(loaded, options.load.model, engine), path = find_model(options.load.model),
                      stamps = FileStamps(loaded.files)](const std::function<bool()>& go_on) {
    BundleOrigin with_hashes = origin;
    add_hashes(with_hashes, path, stamps, go_on);
    return with_hashes;
  };
  return std::make_unique<FlightRecorder>(folder, RecorderOptions{options.record.prompts}, std::move(make_origin), log);
}

std::string address_of(const boost::asio::ip::tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return fmt::format("{}:{}", endpoint.address().is_v6() ? "[" + address + "]" : address, endpoint.port());
}

// The worker's whole life.
void live(ServeOptions& options, const Logger& log) {
  if (const char* token = std::getenv("LLORCH_API_TOKEN")) options.server.token = token;
  try {
    check_bind_address(options.server.host, options.server.token);  // before the minutes that a load may take
  } catch (const Error& error) {
    throw InputError(error.what());
  }
  if (options.request_timeout_s > 0) options.server.request_timeout = to_ms(options.request_timeout_s);
  options.server.drain_timeout = to_ms(options.drain_timeout_s);
  options.server.stall_timeout = to_ms(options.stall_timeout_s);
  if (options.worker_id.empty()) options.worker_id = random_uuid();
  log.info("worker starting", {{"worker_id", options.worker_id}, {"version", LLORCH_VERSION}});

  const std::optional<BundleFolder> bundles = open_bundle_folder(options.record, log);
  options.load.self_test = options.self_test != "off";
  LoadedModel loaded = load(options.load, log);
  const ServedModel model = served_model(loaded);
  EngineOptions engine_options;
  engine_options.max_running = options.load.max_sequences;
  engine_options.max_step_rows = loaded.program->options().max_rows;
  engine_options.max_prefill_rows = engine_options.max_step_rows;
  engine_options.device = model.device;
  std::unique_ptr<FlightRecorder> recorder;  // outlives the engine
  if (bundles) {
    recorder = make_recorder(*bundles, loaded, options, engine_options, log);
    engine_options.on_record = [&recorder](const SequenceRecord& record) { recorder->take(record); };
    options.server.records = true;
  }
  check_isolation(loaded, engine_options, options.self_test, log);
  Engine engine(std::move(loaded.program), engine_options);
  warm_up(engine, model.backend, log);

  Server server(options.server, model, loaded.tokenizer, engine, log);
  const std::string address = address_of(server.listen());
  begin_serving_faults();
  log.info("HTTP server listening", {{"addr", address}, {"worker_id", options.worker_id}});
  const Callback callback(options.callback_url,
                          {options.worker_id, model.vram_bytes, "http://" + address, model.name, model.backend}, log);
  if (!server.run()) std::_Exit(1);  // a second signal: a step that is running is not waited for
  if (const auto broken = engine.broken()) throw RequestError("the worker ends", *broken);
  log.info("worker stopped", {{"worker_id", options.worker_id}});
}

void serve(ServeOptions options) {
  const Logger log = Logger::to_stdout(parse_log_level(options.log_level));
  try {
    live(options, log);
  } catch (const std::exception& error) {
    const FailEvent failure = failure_of(error, ErrorCode::kCommandFailed);
    Logger::Fields fields = {{"code", to_string(failure.code)}, {"error", failure.message}};
    fields.update(failure_detail(failure));
    log.error("worker failed", fields);
    throw;
  }
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model over HTTP");
  command->add_option("--worker-id", options->worker_id, "Name of this worker (default: a new UUID)");
  add_load_options(*command, options->load, false);
  add_kv_dtype_option(*command, options->load);
  command->add_option("--port", options->server.port, "Port (0: a free one, which is logged)")->capture_default_str();
  command->add_option("--host", options->server.host, "Address; other than loopback needs LLORCH_API_TOKEN")
      ->capture_default_str();
  command->add_option("--callback-url", options->callback_url, "POSTed to once the worker is ready");
  command->add_option("--request-timeout", options->request_timeout_s, "Seconds that a request may take (default: any)")
      ->check(CLI::PositiveNumber);
  command->add_option("--drain-timeout", options->drain_timeout_s, "Seconds for running jobs after SIGTERM")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--stall-timeout", options->stall_timeout_s, "Seconds after which a step counts as hanging")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_max_running_option(*command, options->load);
  command->add_option("--max-waiting", options->server.max_waiting, "Requests that may wait; more are refused")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-connections", options->server.max_connections, "Connections at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_record_options(*command, options->record);
  command
      ->add_option("--self-test", options->self_test,
                   "on, off, or auto: before serving, show that what ran before changes no bit (auto: if that takes "
                   "less than a second)")
      ->check(CLI::IsMember({"on", "off", "auto"}))
      ->capture_default_str();
  command->add_option("--log-level", options->log_level, "trace, debug, info, warn, error or off")
      ->envname("LLORCH_LOG")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  command->callback([options] { serve(*options); });
}

}  // namespace llorch
