// Any bytes as an OpenAI request body, and any bytes on the socket of a running server. What is accepted keeps the
// promises of openai.h and comes back from a response unchanged; the server survives everything and still answers the
// next client.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/http/openai.h"
#include "common/http/server.h"
#include "tests/common/http/raw_client.h"
#include "tests/fuzz/seeds.h"

namespace {

namespace http = updraft::http;
namespace openai = updraft::http::openai;
using http::testing::RawClient;

constexpr uint8_t kChat = 0, kCompletion = 1, kSocket = 2, kTools = 3, kTargets = 4;

void Require(bool holds) {
  if (!holds) std::abort();
}

void CheckError(const absl::Status& status) {
  Require(absl::IsInvalidArgument(status) && !status.message().empty());
  const http::Response response = openai::ErrorResponse(status);
  Require(response.status == 400 && http::ParseJson(response.body).ok());
}

void CheckParams(const openai::GenerationParams& params) {
  Require(params.temperature >= 0.0 && params.temperature <= 2.0);
  Require(params.top_p > 0.0 && params.top_p <= 1.0);
  Require(params.min_p >= 0.0 && params.min_p < 1.0);
  Require(params.top_k >= 0 && params.repetition_penalty > 0.0);
  Require(!params.max_tokens || *params.max_tokens >= 1);
  Require(params.stop.size() <= 16);
  Require(std::abs(params.presence_penalty) <= 2.0 && std::abs(params.frequency_penalty) <= 2.0);
  Require(params.n >= 1 && params.n <= 128 && params.logit_bias.size() <= openai::kMaxLogitBiases);
  for (size_t i = 0; i < params.logit_bias.size(); ++i) {
    Require(std::abs(params.logit_bias[i].bias) <= 100.0);
    Require(params.logit_bias[i].token > (i == 0 ? -1 : params.logit_bias[i - 1].token));
  }
  for (const std::string& stop : params.stop) Require(!stop.empty() && stop.size() <= 128);
}

// What the parser lets through is valid UTF-8, so a response carries it back as it is.
void CheckRoundTrip(const std::string& text, bool chat) {
  openai::AnswerHeader header;
  header.chat = chat;
  const http::Json object = openai::AnswerObject(header, {{.text = text, .finish_reason = "stop"}}, {});
  const auto again = http::ParseJson(http::DumpJson(object));
  Require(again.ok());
  const http::Json& choice = (*again)["choices"][0];
  Require((chat ? choice["message"]["content"] : choice["text"]) == text);
}

void FuzzChat(std::string_view body) {
  const auto request = openai::ParseChatRequest(body);
  if (!request.ok()) return CheckError(request.status());
  Require(!request->messages.empty() && !request->messages.back().content.empty());
  for (const openai::Message& message : request->messages) {
    Require(message.role == "system" || message.role == "user" || message.role == "assistant");
    CheckRoundTrip(message.content, /*chat=*/true);
  }
  CheckParams(request->params);
  Require(request->tools.empty());
}

void FuzzTools(std::string_view body) {
  const auto request = openai::ParseChatRequest(body, {.tools = true});
  if (!request.ok()) return CheckError(request.status());
  for (const openai::Message& message : request->messages) {
    Require((message.role == "tool") == !message.tool_call_id.empty());
    Require(message.tool_calls.empty() || message.role == "assistant");
    for (const openai::ToolCall& call : message.tool_calls) Require(!call.id.empty() && !call.name.empty());
  }
  for (const openai::Tool& tool : request->tools) {
    Require(!tool.name.empty());
    Require(tool.parameters.empty() || http::ParseJson(tool.parameters)->is_object());
  }
}

void FuzzCompletion(std::string_view body) {
  const auto request = openai::ParseCompletionRequest(body);
  if (!request.ok()) return CheckError(request.status());
  Require(!request->prompts.empty() && request->prompts.size() * static_cast<size_t>(request->params.n) <= 128);
  for (const openai::CompletionPrompt& prompt : request->prompts) {
    Require(prompt.text.empty() != prompt.ids.empty());
    for (const int32_t id : prompt.ids) Require(id >= 0);
    CheckRoundTrip(prompt.text, /*chat=*/false);
  }
  CheckParams(request->params);
}

http::Server& RunningServer() {
  static http::Server* server = [] {
    http::ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.max_body_bytes = 4096;
    options.max_header_bytes = 2048;
    http::Router router;
    router.set_error_body([](int status, const std::string& message, const http::Request&) {
      return openai::ServerErrorBody(status, message);
    });
    router.Handle("POST", "/v1/chat/completions", [](std::shared_ptr<http::Exchange> exchange) {
      const auto request = openai::ParseChatRequest(exchange->request().body);
      if (!request.ok()) return exchange->Respond(openai::ErrorResponse(request.status()));
      exchange->StartStream({200, "text/event-stream", "", {}});
      exchange->Write("data: {}\n\n").IgnoreError();
      exchange->Finish();
    });
    router.Handle("GET", "/healthz", [](std::shared_ptr<http::Exchange> exchange) {
      exchange->Respond({200, "text/plain", "ok", {}});
    });
    auto started = http::Server::Start(options, std::move(router));
    Require(started.ok());
    return started->release();
  }();
  return *server;
}

void FuzzSocket(std::string_view bytes) {
  const int port = RunningServer().port();
  {
    RawClient client(port);
    Require(client.connected());
    if (client.Send(bytes)) client.HalfClose();
    Require(client.WaitClosed(absl::Seconds(20)));
  }
  Require(http::testing::Fetch(port, "GET", "/healthz").body == "ok");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % kTargets) {
    case kChat:
      FuzzChat(rest);
      break;
    case kCompletion:
      FuzzCompletion(rest);
      break;
    case kSocket:
      FuzzSocket(rest);
      break;
    case kTools:
      FuzzTools(rest);
      break;
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const auto seed = [&](uint8_t target, const std::string& text) {
    const std::string bytes = std::string(1, static_cast<char>(target)) + text;
    add(context, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  const std::string chat =
      R"({"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text",)"
      R"("text":"\u00e9\ud83d\ude00"}]}],"temperature":0.5,"top_p":0.9,"top_k":40,"max_tokens":16,"stop":["a","b"],)"
      R"("stream":true,"stream_options":{"include_usage":true},"seed":-1,"logprobs":true,"top_logprobs":1})";
  seed(kChat, chat);
  seed(kChat, R"({"messages":[{"role":"user","content":"x"}]})");
  seed(kChat, std::string(70, '[') + std::string(70, ']'));
  seed(kTools, R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":)"
               R"("c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":)"
               R"("c","content":"1"}],"tools":[{"type":"function","function":{"name":"f","description":"d",)"
               R"("parameters":{"type":"object"}}}],"tool_choice":"auto"})");
  seed(kCompletion, R"({"prompt":"once","max_tokens":3,"logprobs":2,"echo":false,"suffix":null,"stop":"."})");
  seed(kCompletion, R"({"prompt":["once"],"temperature":1e-300,"min_p":0.1,"repetition_penalty":1.2})");
  seed(kSocket, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(chat.size()) +
                    "\r\n\r\n" + chat);
  seed(kSocket,
       "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
       "chunked\r\n\r\n5;a=b\r\n{\"mes\r\n3\r\nsag\r\n0\r\n\r\n");
  seed(kSocket,
       "GET http://x/healthz?y HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD "
       "/x HTTP/1.1\r\nHost: x\r\n\r\n");
  seed(kSocket, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}");
}
