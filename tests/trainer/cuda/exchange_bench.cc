// Rates of the exchanges between the GPUs of this machine, beside NCCL's all-to-all of the same
// bytes, and of those of the backward while weight gradients are computed.
//
//   exchange_bench [tokens ...]
//
// One line per measurement: median of the repetitions, the ranks' average, and GB/s of rows that
// leave one.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <vector>

#include "common/model/cuda_dispatch_window.h"
#include "common/model/rank_memory.h"
#include "kernels/grouped_gemm.h"
#include "tests/trainer/cuda/gpu_ranks.h"
#include "worker/trainer/cuda/nccl_dispatcher.h"
#include "worker/trainer/cuda/window_dispatcher.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kHidden = 2048, kTopK = 8, kExperts = 128;
constexpr int kRounds = 30;

// Medians of the operations of a round, in microseconds.
class Clock {
 public:
  explicit Clock(size_t operations) : events_(kRounds) {
    for (std::vector<cudaEvent_t>& events : events_) {
      events.resize(operations + 1);
      for (cudaEvent_t& event : events) cudaEventCreate(&event);
    }
  }
  std::vector<double> Run(const std::vector<std::function<void()>>& operations) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    for (const std::vector<cudaEvent_t>& events : events_) {
      cudaEventRecord(events[0], stream);
      for (size_t i = 0; i < operations.size(); ++i) {
        operations[i]();
        cudaEventRecord(events[i + 1], stream);
      }
    }
    cudaDeviceSynchronize();
    std::vector<double> medians;
    for (size_t i = 0; i < operations.size(); ++i) {
      std::vector<float> times;
      for (const std::vector<cudaEvent_t>& events : events_) {
        float milliseconds = 0;
        cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]);
        times.push_back(milliseconds);
      }
      std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
      medians.push_back(times[kRounds / 2] * 1e3);
    }
    return medians;
  }

 private:
  std::vector<std::vector<cudaEvent_t>> events_;
};

void PushAlone(PeerWindow& window, int64_t tokens, int64_t bytes, at::Device device) {
  const at::Tensor x =
      at::randn({tokens, kHidden}, at::TensorOptions(at::kBFloat16).device(device));
  at::Tensor tables = at::empty({2 + 2 * tokens}, at::kInt);
  for (int64_t i = 0; i < 2 * tokens; ++i) tables.data_ptr<int32_t>()[2 + i] = i % tokens;
  tables.data_ptr<int32_t>()[0] = tables.data_ptr<int32_t>()[1] = static_cast<int32_t>(tokens);
  tables = tables.to(device);
  kernels::ExchangeRowsParams rows = {};
  const int peer = 1 - window.rank();
  rows.control.state = reinterpret_cast<uint32_t*>(window.peer(window.rank()));
  rows.control.error = rows.control.state + 32;
  rows.control.rank = window.rank();
  rows.control.size = 2;
  rows.x_TD = static_cast<const nv_bfloat16*>(x.const_data_ptr());
  rows.send_count_P = tables.data_ptr<int32_t>();
  rows.token_of_slot_PT = tables.data_ptr<int32_t>() + 2;
  rows.rows_to[peer] = reinterpret_cast<nv_bfloat16*>(window.peer(peer) + 4096);
  rows.num_tokens = tokens;
  rows.hidden = kHidden;
  rows.top_k = kTopK;
  for (int blocks : {4, 8, 12, 16, 24, 32, 64, 132}) {
    rows.send_blocks = blocks;
    const std::vector<double> us =
        Clock(1).Run({[&] { ExchangeRows(rows, c10::cuda::getCurrentCUDAStream()); }});
    if (window.rank() == 0)
      std::printf("  push alone, %3d blocks          %8.1f us  %6.1f GB/s\n", blocks, us[0],
                  bytes / us[0] / 1e3);
  }
}

// What the host spends on one collective, and the plan of a dispatch alone.
void HostAndPlan(PeerWindow& window, const at::Tensor& expert, const at::Tensor& weight,
                 CudaMeshGroups& groups) {
  const at::Tensor value = at::empty({1024}, weight.options());
  cudaDeviceSynchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) groups.ep->AllReduce(value);
  const std::chrono::duration<double, std::micro> host = std::chrono::steady_clock::now() - start;
  cudaDeviceSynchronize();
  const int64_t tokens = expert.size(0);
  at::Tensor ints = at::empty(
      {2 * 2 * tokens + tokens * kTopK * 3 + 4 * kernels::kExchangeTableInts}, expert.options());
  at::Tensor scratch = at::zeros({kernels::DispatchPlanScratchBytes(tokens, kExperts, 2) / 8},
                                 expert.options().dtype(at::kLong));
  int32_t* at = ints.data_ptr<int32_t>();
  kernels::DispatchPlanParams plan = {};
  plan.control.state = reinterpret_cast<uint32_t*>(window.peer(window.rank()));
  plan.control.error = plan.control.state + 32;
  plan.control.rank = window.rank();
  plan.control.size = 2;
  plan.expert_TK = expert.data_ptr<int32_t>();
  plan.weight_TK = weight.data_ptr<float>();
  plan.slot_PT = at;
  plan.token_of_slot_PT = at += 2 * tokens;
  plan.place_TK = at += 2 * tokens;
  plan.table_to[window.rank()] = at += tokens * kTopK;
  plan.choice_to[window.rank()] = at += kernels::kExchangeTableInts;
  plan.weight_to[window.rank()] = reinterpret_cast<float*>(at += tokens * kTopK);
  plan.send_count_P = at += tokens * kTopK;
  auto* there = reinterpret_cast<int32_t*>(window.peer(1 - window.rank()) + 4096);
  plan.table_to[1 - window.rank()] = there;
  plan.choice_to[1 - window.rank()] = there + kernels::kExchangeTableInts;
  plan.weight_to[1 - window.rank()] =
      reinterpret_cast<float*>(there + kernels::kExchangeTableInts + tokens * kTopK);
  plan.scratch = reinterpret_cast<uint64_t*>(scratch.data_ptr());
  plan.num_tokens = tokens;
  plan.num_experts = kExperts;
  plan.top_k = kTopK;
  const std::vector<double> us =
      Clock(1).Run({[&] { DispatchPlan(plan, c10::cuda::getCurrentCUDAStream()); }});
  if (window.rank() == 0)
    std::printf("  plan alone %.1f us; the host enqueues an all-reduce in %.1f us\n", us[0],
                host.count() / 100);
}

// Exchanges of the backward beside products that nothing waits for yet: the gradient of attention's
// projections behind DispatchGradient, that of the experts' down projections behind
// CombineGradient. `blocks` 0: one after the other, with the whole GPU each.
void BesideProducts(PeerWindow& window, int64_t tokens, bool say, const at::Tensor& x,
                    const at::Tensor& expert, const at::Tensor& weight, Communicator& ranks) {
  constexpr int64_t kQkv = 5120, kFfn = 768;
  const DispatchWindowShape shape = {2, tokens, kHidden, kTopK, 2};
  const auto bf16 = x.options();
  const int sms = at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
  const at::Tensor grad_qkv = at::randn({tokens, kQkv}, bf16);
  at::Tensor grad_projection = at::empty({kQkv, kHidden}, bf16);
  for (const ExchangeBlocks& blocks :
       {ExchangeBlocks{16, 48, 0}, ExchangeBlocks{16, 32, 64}, ExchangeBlocks{12, 24, 48},
        ExchangeBlocks{8, 16, 32}, ExchangeBlocks{8, 12, 24}, ExchangeBlocks{6, 8, 16}}) {
    const auto dispatcher = MakeCudaWindowDispatcher(window, kExperts, shape, blocks);
    Arena saved("saved", ExchangeRoutingBytes(shape, kExperts, tokens), x.device());
    at::Tensor rows = at::zeros({dispatcher->MaxRows(tokens), kHidden}, bf16);
    at::Tensor y = at::empty_like(x), grad_TK = at::empty_like(weight);
    const at::Tensor grad_R = at::rand({rows.size(0)}, weight.options());
    const at::Tensor hidden = at::randn({rows.size(0), kFfn}, bf16);
    at::Tensor grad_down = at::empty({kExperts / 2, kHidden, kFfn}, bf16);
    const Routing routing = dispatcher->Dispatch(x, expert, weight, saved, rows);
    kernels::GroupedGemmShape product = {kernels::GroupedProduct::kWeightGradient,
                                         kernels::GroupedOutput::kBfloat16, kExperts / 2, kHidden,
                                         kFfn};
    const at::Tensor scratch =
        at::empty({kernels::GroupedGemmWorkspaceBytes(product)}, bf16.dtype(at::kByte));
    kernels::GroupedGemm gemm;
    gemm.Build(product, scratch.data_ptr());
    kernels::PrepareGroupedGemmsParams prepare = {};
    const auto data = [](const at::Tensor& t) { return static_cast<nv_bfloat16*>(t.data_ptr()); };
    prepare.calls[0] = {&gemm, data(rows), data(hidden), grad_down.data_ptr()};
    prepare.num_calls = 1;
    prepare.offset_L1 = routing.expert_offset_L1.const_data_ptr<int32_t>();
    prepare.max_rows = rows.size(0);
    const c10::cuda::CUDAStream main = c10::cuda::getCurrentCUDAStream();
    PrepareGroupedGemms(prepare, main);

    const bool serial = blocks.max_blocks == 0;
    const int left = serial ? 0 : sms - blocks.max_blocks;
    const auto exchange_rows = [&] { dispatcher->DispatchGradient(x, routing, rows); };
    const auto exchange_back = [&] {
      dispatcher->CombineGradient(rows, grad_R, routing, y, grad_TK);
    };
    const auto dense = [&] { at::mm_out(grad_projection, grad_qkv.t(), x); };
    const auto dense_limited = [&] {
      const cublasHandle_t handle = at::cuda::getCurrentCUDABlasHandle();
      cublasSetSmCountTarget(handle, left);
      dense();
      cublasSetSmCountTarget(handle, 0);
    };
    const auto grouped = [&] { gemm.Run(main, left); };
    c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
    at::cuda::CUDAEvent before, after;
    const auto beside = [&](const std::function<void()>& exchange,
                            const std::function<void()>& products) {
      if (serial) {
        exchange();
        return products();
      }
      before.record(main);
      before.block(side);
      {
        const c10::cuda::CUDAStreamGuard guard(side);
        exchange();
      }
      after.record(side);
      products();
      after.block(main);
    };
    ranks.Barrier();
    const std::vector<double> us = Clock(5).Run({
        [&] { beside(exchange_rows, dense); },
        [&] { beside(exchange_rows, dense_limited); },
        dense,
        [&] { beside(exchange_back, grouped); },
        grouped,
    });
    if (say)
      std::printf(
          "  %3d blocks: gradient rows + dense dW %6.1f us, limited %6.1f (dW alone %6.1f); back + "
          "dW down %6.1f (dW alone, limited %6.1f)\n",
          blocks.max_blocks, us[0], us[1], us[2], us[3], us[4]);
    std::fflush(stdout);
    ranks.Barrier();
  }
}

void Measure(int64_t tokens, int rank, CudaMeshGroups& groups) {
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
  const DispatchWindowShape shape = {2, tokens, kHidden, kTopK, 2};
  const auto bf16 = at::TensorOptions(at::kBFloat16).device(device);
  const at::Tensor x = at::randn({tokens, kHidden}, bf16);
  const at::Tensor weight = at::rand({tokens, kTopK}, bf16.dtype(at::kFloat));
  const at::Tensor expert =
      std::get<1>(at::topk(at::rand({tokens, kExperts}, bf16.dtype(at::kFloat)), kTopK))
          .to(at::kInt);
  const int64_t bytes = tokens * kHidden * 2;  // nearly every token goes to both ranks
  const bool say = rank == 0;
  if (say)
    std::printf("%ld tokens x %ld, ep 2, %.1f MB: %.1f us at 323 GB/s\n", tokens, kHidden,
                bytes / 1e6, bytes / 323e3);
  const auto map = [&] {
    groups.window =
        PeerWindow::Map(*groups.ep, CudaDispatchWindowLayout(shape).bytes, &groups.why_no_window);
    if (groups.window == nullptr) throw std::runtime_error(groups.why_no_window);
  };
  map();
  PushAlone(*groups.window, tokens, bytes, device);
  HostAndPlan(*groups.window, expert, weight, groups);

  at::Tensor from = at::randn({tokens, kHidden}, bf16), to = at::empty_like(from);
  const std::vector<double> all_to_all = Clock(1).Run({[&] {
    groups.ep->AllToAll(
        {{{from.data_ptr(), from.data_ptr()}, {to.data_ptr(), to.data_ptr()}, bytes}});
  }});
  if (say)
    std::printf("  NCCL all-to-all                  %8.1f us  %6.1f GB/s\n", all_to_all[0],
                bytes / all_to_all[0] / 1e3);

  // The counters of PushAlone are not those of a dispatcher: begin with a clean window.
  groups.window.reset();
  map();
  const auto run = [&](const char* name, ExchangeDispatcher& dispatcher) {
    Arena saved("saved", ExchangeRoutingBytes(shape, kExperts, tokens), device);
    at::Tensor rows = at::empty({dispatcher.MaxRows(tokens), kHidden}, bf16), y = at::empty_like(x);
    at::Tensor grad_R = at::rand({rows.size(0)}, bf16.dtype(at::kFloat));
    at::Tensor grad_TK = at::empty_like(weight);
    Routing routing;
    std::vector<double> us = Clock(5).Run({
        [&] {
          saved.Reset();
          routing = dispatcher.Dispatch(x, expert, weight, saved, rows);
        },
        [&] { dispatcher.Combine(rows, routing, x, y); },
        [&] { dispatcher.Redispatch(x, routing, rows); },
        [&] { dispatcher.DispatchGradient(x, routing, rows); },
        [&] { dispatcher.CombineGradient(rows, grad_R, routing, y, grad_TK); },
    });
    groups.Check();
    if (say)
      std::printf(
          "  %-24s dispatch %6.1f (%5.1f GB/s) combine %6.1f (%5.1f) redispatch %6.1f "
          "gradients %6.1f %6.1f us\n",
          name, us[0], bytes / us[0] / 1e3, us[1], bytes / us[1] / 1e3, us[2], us[3], us[4]);
    std::fflush(stdout);
  };
  for (const ExchangeBlocks& blocks :
       {ExchangeBlocks{16, 48, 0}, ExchangeBlocks{20, 40, 0}, ExchangeBlocks{24, 52, 0},
        ExchangeBlocks{16, 48, 64}, ExchangeBlocks{12, 24, 48}, ExchangeBlocks{8, 16, 32},
        ExchangeBlocks{8, 12, 24}, ExchangeBlocks{6, 8, 16}}) {
    char name[64];
    std::snprintf(name, sizeof(name), "window %d/%d of %d", blocks.rows_send, blocks.back_send,
                  blocks.max_blocks);
    const auto dispatcher = MakeCudaWindowDispatcher(*groups.window, kExperts, shape, blocks);
    run(name, *dispatcher);
    groups.ep->Barrier();
  }
  BesideProducts(*groups.window, tokens, say, x, expert, weight, *groups.ep);
  const auto nccl = MakeNcclDispatcher(*groups.ep, kExperts, shape);
  run("NCCL", *nccl);
  groups.window.reset();
}

int Main(int argc, char** argv) {
  std::vector<int64_t> sizes = {4096, 16384};
  if (argc > 1) sizes.clear();
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  if (CountGpus() < 2) {
    std::printf("needs two GPUs of one machine, here are %d\n", CountGpus());
    return 0;
  }
  SharedId id;
  RankProcesses processes(2, [&](int rank) {
    CudaMeshGroups groups = JoinOnGpu(id, rank, 2, 2, kExperts, 0);
    for (int64_t tokens : sizes) Measure(tokens, rank, groups);
  });
  const std::vector<int> codes = processes.Wait(std::chrono::seconds(120));
  return *std::max_element(codes.begin(), codes.end());
}

}  // namespace
}  // namespace switchyard::trainer

int main(int argc, char** argv) { return switchyard::trainer::Main(argc, argv); }
