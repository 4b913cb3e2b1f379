// One easy handle for each request: these are rare.
#include "app/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <exception>
#include <memory>

#include "base/error.h"

namespace llorch {
namespace {

struct Transfer {
  const HttpRequest& request;
  CURL* curl;
  HttpAnswer answer;
  std::exception_ptr thrown;  // by on_body; C code lies between
};

size_t on_bytes(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t n = size * count;
  curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &transfer.answer.status);
  try {
    if (transfer.request.on_body && transfer.answer.status / 100 == 2) {
      transfer.request.on_body({data, n});
    } else {
      transfer.answer.body.append(data, n);
    }
  } catch (...) {
    transfer.thrown = std::current_exception();
    return 0;
  }
  return n;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const std::atomic<bool>* stop = static_cast<Transfer*>(user)->request.stop;
  return stop != nullptr && *stop;
}

}  // namespace

HttpAnswer send_http(const HttpRequest& request) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), &curl_easy_cleanup);
  if (!curl) fail("libcurl does not start");
  Transfer transfer{request, curl.get(), {}, nullptr};
  const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  curl_slist* list = nullptr;
  const auto add_header = [&list](const std::string& line) { list = curl_slist_append(list, line.c_str()); };
  if (!request.json.empty()) {
    add_header("Content-Type: application/json");
    set(CURLOPT_POSTFIELDS, request.json.c_str());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json.size()));
  }
  if (!request.bearer_token.empty()) add_header("Authorization: Bearer " + request.bearer_token);
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, &curl_slist_free_all);
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_URL, request.url.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
  set(CURLOPT_PROTOCOLS_STR, "http,https");
#else
  set(CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  set(CURLOPT_CONNECTTIMEOUT_MS, 5000L);
  set(CURLOPT_WRITEFUNCTION, &on_bytes);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
  const CURLcode code = curl_easy_perform(curl.get());
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (code != CURLE_OK) fail("{}: {}", request.url, curl_easy_strerror(code));
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &transfer.answer.status);
  return std::move(transfer.answer);
}

}  // namespace llorch
