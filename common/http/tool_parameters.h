// The schemas of a chat request's tools, with the order of their keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace updraft::http::openai {

// tools[i].function.parameters of a body that ParseJson takes, each as one line of JSON; empty where there is none.
// http::Json sorts keys, while a model is shown a schema as it was written, and reads one that is in another order
// differently.
std::vector<std::string> ToolParameters(std::string_view body);

}  // namespace updraft::http::openai
