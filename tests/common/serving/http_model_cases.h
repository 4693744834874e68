// OpenAI's HTTP over tiers that run a model: what an answer consists of and how it ends. Included by one file of a test
// program, which instantiates HttpModelCases.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <regex>
#include <string>
#include <vector>

#include "common/text/tokenizer.h"
#include "tests/common/serving/http_front_cases.h"

namespace updraft::testing {

class HttpModelCases : public HttpFrontCases {};

TEST_P(HttpModelCases, DeadlineOfTheHeaderEndsTheAnswer) {
  const std::string body = R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":400)";
  const RawResponse late = Fetch(port(), "POST", kChat, body + "}", "X-Updraft-Deadline-Ms: 1\r\n");
  EXPECT_EQ(late.status, 504) << late.body;
  EXPECT_EQ((*http::ParseJson(late.body))["error"]["code"], "deadline_exceeded");
  EXPECT_EQ(late.headers.count("x-request-id"), 1u);
  EXPECT_EQ(Fetch(port(), "POST", kChat, body + "}", "X-Updraft-Deadline-Ms: 600000\r\n").status, 200);
}

TEST_P(HttpModelCases, TheLikeliestTokensAreTold) {
  const Json answer = Post(kChat, ChatBody(R"("logprobs":true,"top_logprobs":5)"));
  for (const Json& token : answer["choices"][0]["logprobs"]["content"]) {
    const Json& top = token["top_logprobs"];
    ASSERT_EQ(top.size(), 5u);
    EXPECT_EQ(top[0]["bytes"], token["bytes"]) << "greedy takes the likeliest";
    EXPECT_EQ(top[0]["logprob"], token["logprob"]);
    double mass = 0.0;
    for (size_t i = 0; i < 5; ++i) {
      mass += std::exp(top[i]["logprob"].get<double>());
      if (i > 0) {
        EXPECT_LE(top[i]["logprob"], top[i - 1]["logprob"]);
      }
    }
    EXPECT_LE(mass, 1.0 + 1e-5);
  }
  const auto told = [&](int n) {
    return Post(kChat, ChatBody(absl::StrFormat(R"("logprobs":true,"top_logprobs":%d)", n)))["choices"][0]["logprobs"];
  };
  EXPECT_EQ(told(0)["content"][0]["top_logprobs"], Json::array());
  EXPECT_EQ(told(20)["content"][0]["top_logprobs"].size(), 20u);
}

// What is sampled, or biased away, need not be one of the likeliest, which are the model's own.
TEST_P(HttpModelCases, WhatIsChosenNeedNotBeLikely) {
  const Json free = Post(kChat, ChatBody(R"("logprobs":true,"top_logprobs":2)"))["choices"][0]["logprobs"]["content"];
  const std::vector<int32_t> said = AskOf(tier_->backend(), ChatRequest("hello there"))->tokens();
  const Json biased =
      Post(kChat, ChatBody(absl::StrFormat(R"("logprobs":true,"top_logprobs":2,"logit_bias":{"%d":-100})",
                                           said[0])))["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(biased[0]["top_logprobs"], free[0]["top_logprobs"]);
  EXPECT_NE(biased[0]["bytes"], free[0]["bytes"]);
  // A completion's object has the chosen one as well.
  const Json choice = Post("/v1/completions", R"({"prompt":"once upon","max_tokens":8,"logprobs":2,"temperature":2,)"
                                              R"("seed":3})")["choices"][0];
  const Json& logprobs = choice["logprobs"];
  for (size_t i = 0; i < 8; ++i) {
    const std::string token = logprobs["tokens"][i];
    EXPECT_EQ(logprobs["top_logprobs"][i][token], logprobs["token_logprobs"][i]);
    EXPECT_LE(logprobs["top_logprobs"][i].size(), 3u);
  }
}

// Whatever a random model would say.
TEST_P(HttpModelCases, AnAnswerHasTheShapeThatIsAskedFor) {
  const std::string schema = R"({"type":"object","properties":{"zone":{"enum":["left","right"]},"level":)"
                             R"({"type":"integer","minimum":0,"maximum":99},"on":{"type":"boolean"}},)"
                             R"("required":["zone","level"]})";
  const std::vector<std::string> asked = {
      R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":)" + schema + "}}",
      R"("guided_json":)" + schema, R"("structured_outputs":{"json":)" + schema + "}"};
  for (const std::string& shape : asked) {
    for (int seed = 1; seed <= 5; ++seed) {
      const std::string body =
          absl::StrFormat(R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":200,)"
                          R"("temperature":1.5,"seed":%d,%s)",
                          seed, shape);
      const Json choice = Post(kChat, body + "}")["choices"][0];
      EXPECT_EQ(choice["finish_reason"], "stop");
      const std::string text = choice["message"]["content"];
      const auto json = http::ParseJson(text);
      ASSERT_TRUE(json.ok()) << text;
      EXPECT_TRUE(json->at("zone") == "left" || json->at("zone") == "right") << text;
      EXPECT_TRUE(json->at("level").is_number_integer() && json->at("level") >= 0 && json->at("level") <= 99) << text;
      EXPECT_EQ(json->size(), json->contains("on") ? 3u : 2u) << text;
      // In the order of the schema, not of the alphabet.
      EXPECT_LT(text.find("zone"), text.find("level"));
      std::string streamed;
      for (const Json& event : Events(Fetch(port(), "POST", kChat, body + R"(,"stream":true})").body)) {
        for (const Json& part : event["choices"]) streamed += part["delta"].value("content", "");
      }
      EXPECT_EQ(streamed, text);
    }
  }
  const auto said = [&](const std::string& shape) {
    return Post(kChat, R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":100,)" + shape +
                           "}")["choices"][0]["message"]["content"]
        .get<std::string>();
  };
  EXPECT_THAT(said(R"("guided_choice":["yes","no"])"), ::testing::AnyOf("yes", "no"));
  EXPECT_TRUE(std::regex_match(said(R"("guided_regex":"[A-F]{3}-[0-9]{2}")"), std::regex("[A-F]{3}-[0-9]{2}")));
  EXPECT_TRUE(std::regex_match(said(R"("grammar":"root ::= item item\nitem ::= \"<\" [a-c]{2} \">\"")"),
                               std::regex("(<[a-c]{2}>){2}")));
}

TEST_P(HttpModelCases, AShapeThatCannotBeIsRefusedByItsField) {
  const auto refused = [&](const std::string& fields) {
    int status = 0;
    const Json error = Post(kChat, ChatBody(fields), &status)["error"];
    EXPECT_EQ(status, 400) << fields;
    return error["param"].is_string() ? error["param"].get<std::string>() : error["message"].get<std::string>();
  };
  const std::string in_format = "response_format.json_schema.schema";
  EXPECT_EQ(refused(R"("response_format":{"type":"json_schema","json_schema":{"schema":{"not":{}}}})"), in_format);
  EXPECT_EQ(refused(R"("response_format":{"type":"json_schema","json_schema":{"schema":{"enum":[]}}})"), in_format);
  EXPECT_EQ(refused(R"("response_format":{"type":"json_schema","json_schema":{}})"), in_format);
  EXPECT_EQ(refused(R"("response_format":{"type":"json_schema"})"), "response_format.json_schema");
  EXPECT_EQ(refused(R"("response_format":{"type":"xml"})"), "response_format.type");
  EXPECT_EQ(refused(R"("guided_regex":"(a")"), "guided_regex");
  EXPECT_EQ(refused(R"("grammar":"root ::= root")"), "grammar");
  EXPECT_EQ(refused(R"("guided_choice":[""])"), "guided_choice");
  EXPECT_EQ(refused(R"("guided_choice":["a"],"guided_regex":"a")"), "guided_choice");
  EXPECT_EQ(refused(R"("structured_outputs":{"xml":"a"})"), "structured_outputs.xml");
  EXPECT_EQ(refused(R"("guided_json":[1])"), "guided_json");
}

TEST_P(HttpModelCases, SeveralPromptsAreAnsweredAsEachAlone) {
  const std::string rest = R"("max_tokens":8,"temperature":0.8)";
  const auto alone = [&](const std::string& prompt, int seed) {
    return Post("/v1/completions", absl::StrFormat(R"({"prompt":%s,"seed":%d,%s})", prompt, seed, rest));
  };
  const std::vector<std::string> prompts = {R"("once upon")", R"("hello there, all of you")", R"("x")"};
  const std::string body =
      absl::StrFormat(R"({"prompt":[%s,%s,%s],"seed":5,"n":2,%s)", prompts[0], prompts[1], prompts[2], rest);
  const Json answer = Post("/v1/completions", body + "}");
  ASSERT_EQ(answer["choices"].size(), 6u) << answer;
  int n_prompt = 0, n_completion = 0;
  std::vector<std::string> expected;
  for (int i = 0; i < 6; ++i) {
    const Json one = alone(prompts[static_cast<size_t>(i / 2)], 5 + i % 2);
    expected.push_back(one["choices"][0]["text"]);
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], expected.back()) << i;
    n_prompt += i % 2 == 0 ? one["usage"]["prompt_tokens"].get<int>() : 0;
    n_completion += one["usage"]["completion_tokens"].get<int>();
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], n_prompt);
  EXPECT_EQ(answer["usage"]["completion_tokens"], n_completion);
  std::vector<std::string> streamed(6);
  for (const Json& event : Events(Fetch(port(), "POST", "/v1/completions", body + R"(,"stream":true})").body)) {
    for (const Json& choice : event["choices"]) streamed[choice["index"].get<size_t>()] += choice["text"];
  }
  EXPECT_EQ(streamed, expected);
}

TEST_P(HttpModelCases, APromptMayBeTokenIds) {
  const text::Tokenizer& tokenizer = *tier_->backend().served().tokenizer();
  const std::vector<int32_t> ids = tokenizer.Encode("once upon a time").value();
  const std::string rest = R"(,"max_tokens":8})";
  const Json of_text = Post("/v1/completions", R"({"prompt":"once upon a time")" + rest);
  for (const Json& prompt : {Json(ids), Json::array({ids})}) {
    const Json of_ids = Post("/v1/completions", R"({"prompt":)" + http::DumpJson(prompt) + rest);
    EXPECT_EQ(of_ids["choices"][0]["text"], of_text["choices"][0]["text"]);
    EXPECT_EQ(of_ids["usage"], of_text["usage"]);
  }
  int status = 0;
  EXPECT_EQ(Post("/v1/completions", absl::StrFormat(R"({"prompt":["a",[1,%d]]})", tokenizer.vocab_size()),
                 &status)["error"]["param"],
            "prompt[1][1]");
  EXPECT_EQ(status, 400);
}

TEST_P(HttpModelCases, EchoBeginsWithThePrompt) {
  const std::string rest = R"(,"max_tokens":8)";
  const std::string text = Post("/v1/completions", R"({"prompt":"once upon")" + rest + "}")["choices"][0]["text"];
  const std::string body = R"({"prompt":["once upon"],"n":2,"echo":true)" + rest;
  const Json echoed = Post("/v1/completions", body + "}")["choices"];
  std::vector<std::string> streamed(2);
  for (const Json& event : Events(Fetch(port(), "POST", "/v1/completions", body + R"(,"stream":true})").body)) {
    for (const Json& choice : event["choices"]) streamed[choice["index"].get<size_t>()] += choice["text"];
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(echoed[i]["text"], "once upon" + text);
    EXPECT_EQ(streamed[i], "once upon" + text);
  }
}

// A body of a greedy request with a bias on each of `tokens`.
inline std::string BiasBody(const std::vector<int32_t>& tokens, float bias) {
  Json biases = Json::object();
  for (const int32_t token : tokens) biases[absl::StrCat(token)] = bias;
  return ChatBody(R"("logit_bias":)" + http::DumpJson(biases));
}

TEST_P(HttpModelCases, ABiasForbidsAndForcesTokens) {
  const std::vector<int32_t> said = AskOf(tier_->backend(), ChatRequest("hello there"))->tokens();
  ASSERT_FALSE(said.empty());
  v1::GenerateRequest request = ChatRequest("hello there");
  v1::LogitBias::Entry* entry = request.mutable_sampling()->mutable_logit_bias()->add_entries();
  entry->set_token(said[0]);
  entry->set_bias(-100);
  const auto without = AskOf(tier_->backend(), request);
  ASSERT_TRUE(without->status().ok()) << without->status();
  ASSERT_FALSE(without->tokens().empty());
  EXPECT_THAT(without->tokens(), ::testing::Not(::testing::Contains(said[0])));
  EXPECT_EQ(Post(kChat, BiasBody({said[0]}, -100))["choices"][0]["message"]["content"], without->text());
  // Of a token that is one letter the answer is that letter, as often as was asked for.
  const text::Tokenizer& tokenizer = *tier_->backend().served().tokenizer();
  int32_t letter = 0;
  while (letter < tokenizer.vocab_size() && tokenizer.TokenBytes(letter) != "q") ++letter;
  ASSERT_LT(letter, tokenizer.vocab_size());
  EXPECT_EQ(Post(kChat, BiasBody({letter}, 100))["choices"][0]["message"]["content"], std::string(24, 'q'));
  int status = 0;
  EXPECT_EQ(Post(kChat, BiasBody({tokenizer.vocab_size()}, 1), &status)["error"]["param"], "logit_bias");
  EXPECT_EQ(status, 400);
}

// One letter of two is as good as the other: how often each was said decides.
TEST_P(HttpModelCases, AFrequencyPenaltyTakesTurns) {
  const text::Tokenizer& tokenizer = *tier_->backend().served().tokenizer();
  std::vector<int32_t> letters;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string bytes = tokenizer.TokenBytes(id);
    if (bytes == "q" || bytes == "x") letters.push_back(id);
  }
  ASSERT_EQ(letters.size(), 2u);
  std::string body = BiasBody(letters, 100);
  const std::string alone = Post(kChat, body)["choices"][0]["message"]["content"];
  ASSERT_EQ(alone.size(), 24u);
  body.insert(body.size() - 1, R"(,"frequency_penalty":2)");
  const std::string in_turns = Post(kChat, body)["choices"][0]["message"]["content"];
  const auto lead = [](const std::string& text) {
    return std::abs(std::count(text.begin(), text.end(), 'q') - std::count(text.begin(), text.end(), 'x'));
  };
  EXPECT_LE(lead(in_turns), lead(alone));
  EXPECT_LT(lead(in_turns), 12) << in_turns;
}

// Each is what its seed alone gives.
TEST_P(HttpModelCases, SeveralChoicesAreTheAnswersOfSuccessiveSeeds) {
  const auto body = [](int seed, const std::string& rest) {
    return ChatBody(absl::StrFormat(R"("temperature":1,"seed":%d%s)", seed, rest));
  };
  std::vector<std::string> alone;
  int n_prompt = 0, n_answer = 0;
  for (int i = 0; i < 3; ++i) {
    const Json answer = Post(kChat, body(5 + i, ""));
    alone.push_back(answer["choices"][0]["message"]["content"]);
    n_prompt = answer["usage"]["prompt_tokens"];
    n_answer += answer["usage"]["completion_tokens"].get<int>();
  }
  EXPECT_NE(alone[0], alone[1]);
  const Json whole = Post(kChat, body(5, R"(,"n":3)"));
  ASSERT_EQ(whole["choices"].size(), 3u);
  EXPECT_EQ(whole["usage"]["prompt_tokens"], n_prompt);
  EXPECT_EQ(whole["usage"]["completion_tokens"], n_answer);
  for (int i = 0; i < 3; ++i) {
    const Json& choice = whole["choices"][i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["message"]["content"], alone[i]) << i;
    EXPECT_EQ(choice["updraft"]["decision"], "keep");
  }
  const RawResponse response =
      Fetch(port(), "POST", kChat, body(5, R"(,"n":3,"stream":true,"stream_options":{"include_usage":true})"));
  EXPECT_TRUE(response.complete);
  std::vector<std::string> streamed(3);
  std::vector<int> n_closed(3);
  const std::vector<Json> events = Events(response.body);
  for (const Json& event : events) {
    if (event["choices"].empty()) continue;
    const Json& choice = event["choices"][0];
    const size_t index = choice["index"];
    ASSERT_LT(index, 3u);
    EXPECT_EQ(n_closed[index], 0) << "nothing follows the end of a choice";
    streamed[index] += choice["delta"].value("content", "");
    n_closed[index] += choice["finish_reason"].is_null() ? 0 : 1;
  }
  EXPECT_EQ(streamed, alone);
  EXPECT_THAT(n_closed, ::testing::Each(1));
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], n_answer);
}

// Nobody said how long: until the end, or what the context holds.
TEST_P(HttpModelCases, WithoutMaxTokensTheContextEndsTheAnswer) {
  const Json answer = Post(kChat, R"({"messages":[{"role":"user","content":"hello there"}]})");
  const int total = answer["usage"]["total_tokens"];
  EXPECT_GT(answer["usage"]["completion_tokens"], 24);
  if (answer["choices"][0]["finish_reason"] == "length") {
    EXPECT_EQ(total, tier_->backend().max_sequence_tokens());
  } else {
    EXPECT_LT(total, tier_->backend().max_sequence_tokens());
  }
}

}  // namespace updraft::testing
