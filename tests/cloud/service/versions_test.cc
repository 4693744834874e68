// Edges of earlier versions and this cloud: what they sent, recorded between real daemons (tests/golden/wire), is
// answered, and the answer is whole for a reader that knows no more than their schema.
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/cloud/service/live_cloud.h"
#include "tests/common/rpc/raw_call.h"
#include "tests/common/rpc/recorded_wire.h"

namespace updraft::testing {
namespace {

using nlohmann::json;

// The recorder's model: the token ids of the recording are of its vocabulary.
const std::string& RecordedModelPath() {
  static const ModelFile file("recorded", FindShape("tiny-qwen2").value());
  return file.path;
}

// A message of this version as the earlier one reads it.
json Read(const RecordedSchema& schema, const std::string& type, const std::string& bytes) {
  const auto message = schema.New(type);
  EXPECT_TRUE(message->ParseFromString(bytes));
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_enums_as_ints = true;
  std::string text;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(*message, &text, options).ok());
  return json::parse(text);
}

// What an edge does with a stream: text and ids of the chunks, then the last message; load and id where they are.
void ExpectWholeAnswer(const RecordedSchema& schema, const RecordedCall& call, const RawAnswer& answer) {
  const json request = Read(schema, "GenerateRequest", call.request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_GE(answer.responses.size(), 2u);
  size_t n_tokens = 0, n_evidence = 0;
  std::string text;
  json done;
  for (size_t i = 0; i < answer.responses.size(); ++i) {
    const json response = Read(schema, "GenerateResponse", answer.responses[i]);
    const bool ends = i == 0 || i + 1 == answer.responses.size();
    if (ends) {
      EXPECT_TRUE(response.contains("load")) << response;
    }
    if (i == 0) {
      EXPECT_EQ(response.value("request_id", ""), request["request_id"]);
    }
    EXPECT_TRUE(response.contains("server_us"));
    if (response.contains("chunk")) {
      const json& chunk = response["chunk"];
      EXPECT_TRUE(done.is_null()) << "done is always last";
      n_tokens += chunk.value("tokens", json::array()).size();
      n_evidence += chunk.value("evidence", json::array()).size();
      text += chunk.value("text", "");
      EXPECT_EQ(chunk["tier"], "cloud");
    }
    if (response.contains("done")) done = response["done"];
  }
  ASSERT_FALSE(done.is_null()) << "without it the edge would call the answer broken";
  const auto* reasons = schema.file().FindEnumTypeByName("FinishReason");
  const int reason = done.value("finish_reason", 0);
  EXPECT_NE(reason, 0);
  EXPECT_NE(reasons->FindValueByNumber(reason), nullptr) << "a reason that it does not know: " << reason;
  EXPECT_EQ(done["usage"]["completion_tokens"], n_tokens);
  EXPECT_LE(n_tokens, request["max_tokens"]);
  EXPECT_GT(n_tokens, 0u);
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(n_evidence, request.value("include_evidence", false) ? n_tokens : 0u);
}

TEST(CloudVersions, RequestsOfEarlierEdgesAreAnsweredInTheirTerms) {
  const auto cloud = StartCloud({}, RecordedModelPath());
  ASSERT_NE(cloud, nullptr);
  const auto versions = RecordedVersions();
  ASSERT_FALSE(versions.empty());
  for (const std::string& version : versions) {
    const RecordedSchema schema(version);
    std::set<std::string> methods, inputs;
    for (const RecordedCall& call : ReadRecording(version)) {
      SCOPED_TRACE(version + " " + call.name);
      methods.insert(call.method);
      const RawAnswer answer = CallRaw(cloud->address(), call.method, call.request);
      if (call.method == "/updraft.v1.Inference/Generate") {
        ExpectWholeAnswer(schema, call, answer);
        const json request = Read(schema, "GenerateRequest", call.request);
        for (const char* input : {"conversation", "prompt", "tokens"}) {
          if (request.contains(input)) inputs.insert(input);
        }
      } else {
        ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
        ASSERT_EQ(answer.responses.size(), 1u);
        const json status = Read(schema, "GetStatusResponse", answer.responses[0]);
        EXPECT_EQ(status["tier"], "cloud");
        EXPECT_GT(status["model"]["context_length"], 0);
        const json then = Read(schema, "GetStatusResponse", call.responses.at(0));
        EXPECT_EQ(status["model"]["tokenizer_fingerprint"], then["model"]["tokenizer_fingerprint"])
            << "tiers of these two versions send text where ids would do";
      }
    }
    EXPECT_EQ(methods.size(), 2u);
    EXPECT_EQ(inputs.size(), 3u) << "the recording does not have every kind of input";
  }
}

}  // namespace
}  // namespace updraft::testing
