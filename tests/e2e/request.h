// What tests of the programs ask.
#pragma once

#include "updraft/v1/inference.pb.h"

namespace updraft::testing {

inline v1::GenerateRequest Request(int max_tokens = 24) {
  v1::GenerateRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content("hello there");
  request.set_max_tokens(max_tokens);
  return request;
}

}  // namespace updraft::testing
