#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_TARGETS_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_TARGETS_H_

#include <array>
#include <string_view>

namespace updraft::train {

// The linear layers of a block, in file order, as GGUF names them (blk.N.NAME.weight).
inline constexpr std::array<std::string_view, 7> kLoraTargets = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                                 "ffn_gate", "ffn_up", "ffn_down"};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_TARGETS_H_
