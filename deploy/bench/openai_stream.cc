#include "deploy/bench/openai_stream.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace updraft {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;

// Runs `step` (which starts one asynchronous operation on `stream`) to its end or the stream's timeout.
template <typename Step>
beast::error_code Await(asio::io_context& io, Step step) {
  beast::error_code result = asio::error::would_block;
  step([&result](beast::error_code error, auto&&...) { result = error; });
  io.restart();
  io.run();
  return result;
}

absl::Status HttpError(const HttpTarget& target, const char* what, beast::error_code error) {
  return absl::UnavailableError(absl::StrCat(target.host, ":", target.port, ": ", what, ": ", error.message()));
}

absl::Status Connect(asio::io_context& io, beast::tcp_stream& stream, const HttpTarget& target,
                     absl::Duration timeout) {
  tcp::resolver resolver(io);
  beast::error_code error;
  const auto endpoints = resolver.resolve(target.host, target.port, error);
  if (error) return HttpError(target, "cannot resolve", error);
  stream.expires_after(absl::ToChronoMilliseconds(timeout));
  error = Await(io, [&](auto done) { stream.async_connect(endpoints, std::move(done)); });
  if (error) return HttpError(target, "cannot connect", error);
  return absl::OkStatus();
}

http::request<http::string_body> MakeRequest(http::verb verb, const HttpTarget& target, const std::string& path,
                                             std::string body) {
  http::request<http::string_body> request(verb, target.base_path + path, 11);
  request.set(http::field::host, target.host);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::connection, "close");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

// Cuts the byte stream into SSE events (lines "data: ..." ended by a blank line; one data line each in this API).
class SseSplitter {
 public:
  explicit SseSplitter(const std::function<void(const std::string&)>& on_data) : on_data_(on_data) {}
  void Push(absl::string_view bytes) {
    pending_.append(bytes.data(), bytes.size());
    size_t begin = 0;
    for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      absl::string_view line(pending_.data() + begin, end - begin);
      absl::ConsumeSuffix(&line, "\r");
      if (absl::ConsumePrefix(&line, "data:")) {
        absl::ConsumePrefix(&line, " ");
        if (line != "[DONE]") on_data_(std::string(line));
      }
    }
    pending_.erase(0, begin);
  }

 private:
  const std::function<void(const std::string&)>& on_data_;
  std::string pending_;
};

}  // namespace

absl::StatusOr<HttpTarget> ParseHttpTarget(const std::string& url) {
  absl::string_view rest = url;
  if (!absl::ConsumePrefix(&rest, "http://")) {
    return absl::InvalidArgumentError(absl::StrCat("--openai: expected http://HOST:PORT[/v1], found '", url, "'"));
  }
  const size_t slash = rest.find('/');
  const absl::string_view authority = rest.substr(0, slash);
  const size_t colon = authority.rfind(':');
  HttpTarget target;
  target.host = std::string(authority.substr(0, colon));
  target.port = colon == absl::string_view::npos ? "80" : std::string(authority.substr(colon + 1));
  target.base_path = slash == absl::string_view::npos ? "" : std::string(absl::StripSuffix(rest.substr(slash), "/"));
  if (target.base_path.empty()) target.base_path = "/v1";
  if (target.host.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--openai: no host in '", url, "'"));
  }
  return target;
}

absl::StatusOr<std::string> FirstModel(const HttpTarget& target, absl::Duration timeout) {
  asio::io_context io;
  beast::tcp_stream stream(io);
  if (absl::Status status = Connect(io, stream, target, timeout); !status.ok()) return status;
  const auto request = MakeRequest(http::verb::get, target, "/models", "");
  beast::error_code error = Await(io, [&](auto done) { http::async_write(stream, request, std::move(done)); });
  if (error) return HttpError(target, "cannot send", error);
  beast::flat_buffer buffer;
  http::response<http::string_body> response;
  error = Await(io, [&](auto done) { http::async_read(stream, buffer, response, std::move(done)); });
  if (error) return HttpError(target, "cannot read", error);
  const auto body = nlohmann::json::parse(response.body(), nullptr, /*allow_exceptions=*/false);
  if (!body.is_object() || !body.contains("data") || !body["data"].is_array() || body["data"].empty() ||
      !body["data"][0].is_object() || !body["data"][0].contains("id") || !body["data"][0]["id"].is_string()) {
    return absl::UnavailableError(absl::StrCat(target.host, ":", target.port, ": GET ", target.base_path,
                                               "/models listed no model; give --openai-model"));
  }
  return body["data"][0]["id"].get<std::string>();
}

absl::Status StreamCompletion(const HttpTarget& target, const std::string& body, absl::Duration timeout,
                              const std::function<void(const std::string&)>& on_data) {
  asio::io_context io;
  beast::tcp_stream stream(io);
  if (absl::Status status = Connect(io, stream, target, timeout); !status.ok()) return status;
  const auto request = MakeRequest(http::verb::post, target, "/completions", body);
  beast::error_code error = Await(io, [&](auto done) { http::async_write(stream, request, std::move(done)); });
  if (error) return HttpError(target, "cannot send", error);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  error = Await(io, [&](auto done) { http::async_read_header(stream, buffer, parser, std::move(done)); });
  if (error) return HttpError(target, "cannot read", error);
  SseSplitter events(on_data);
  std::string error_body;
  const bool accepted = parser.get().result() == http::status::ok;
  char chunk[16384];
  while (!parser.is_done()) {
    parser.get().body().data = chunk;
    parser.get().body().size = sizeof(chunk);
    parser.get().body().more = true;
    error = Await(io, [&](auto done) { http::async_read_some(stream, buffer, parser, std::move(done)); });
    if (error == http::error::need_buffer) error = {};
    if (error) return HttpError(target, "cannot read", error);
    const absl::string_view bytes(chunk, sizeof(chunk) - parser.get().body().size);
    if (accepted) {
      events.Push(bytes);
    } else {
      error_body.append(bytes.data(), bytes.size());
    }
  }
  if (!accepted) {
    return absl::UnavailableError(absl::StrCat("HTTP ", parser.get().result_int(), ": ", error_body.substr(0, 300)));
  }
  return absl::OkStatus();
}

bool CarriesText(const std::string& event) {
  const auto json = nlohmann::json::parse(event, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("choices") || !json["choices"].is_array() || json["choices"].empty()) {
    return false;
  }
  const auto& choice = json["choices"][0];
  const auto text = choice.is_object() ? choice.find("text") : choice.end();
  return text != choice.end() && text->is_string() && !text->get_ref<const std::string&>().empty();
}

}  // namespace updraft
