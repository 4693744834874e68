#ifndef UPDRAFT_DEPLOY_TRAIN_FUSED_OPS_H_
#define UPDRAFT_DEPLOY_TRAIN_FUSED_OPS_H_

#include <torch/torch.h>

namespace updraft::train {

// Differentiable operations in one pass over memory each, for bf16 products on a CPU: composed of tensor operations
// they take longer than the matrix products themselves. Other devices and fp32 use the same mathematics in tensor
// operations, which is also what the tests compare with. The results do not depend on the number of threads.

// x: [rows..., width] f32, gain: [width] f32 -> bf16, x / rms(x) * gain.
torch::Tensor FusedRmsNorm(const torch::Tensor& x, const torch::Tensor& gain, double epsilon);

// both: [rows..., 2 * inner] bf16 -> [rows..., inner] bf16, silu(first half) * second half.
torch::Tensor FusedSwiGlu(const torch::Tensor& both);

// Causal attention with rotary positions. qkv: [batch, time, (heads + 2 * kv_heads) * head] bf16, queries first; cosine
// and sine: [>= time, head] f32, one value per neighbouring pair, stored twice. -> [batch, time, heads * head] bf16.
// Works one head at a time on f32 copies that stay in cache; the backward pass computes the probabilities anew.
torch::Tensor FusedAttention(const torch::Tensor& qkv, const torch::Tensor& cosine, const torch::Tensor& sine,
                             int64_t heads, int64_t kv_heads);

// Head sizes that FusedAttention has a body for.
bool FusedAttentionSupports(int64_t head);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_FUSED_OPS_H_
