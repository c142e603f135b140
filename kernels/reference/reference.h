// Plain host versions of every kernel: same parameter structs with host pointers, loops, double
// accumulation.
//
// The specification that kernels are tested against; not fast, not used by the trainer. Scratch is
// allocated, so there is no workspace argument.
#pragma once

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/dispatch.h"
#include "kernels/embedding_gradient.h"
#include "kernels/grouped_gemm.h"
#include "kernels/qk_norm_rope.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"
#include "kernels/routing.h"
#include "kernels/sum_of_squares.h"
#include "kernels/swiglu.h"

namespace switchyard::kernels::reference {

void RmsNormForward(const RmsNormForwardParams& p);
void RmsNormBackward(const RmsNormBackwardParams& p);
void SwigluForward(const SwigluForwardParams& p);
void SwigluBackward(const SwigluBackwardParams& p);
void QkNormRopeForward(const QkNormRopeForwardParams& p);
void QkNormRopeBackward(const QkNormRopeBackwardParams& p);
void RouterForward(const RouterForwardParams& p);
void RouterBackward(const RouterBackwardParams& p);
void BuildRouting(const RoutingParams& p);
void ScatterRows(const ScatterRowsParams& p);
void GatherChoices(const GatherChoicesParams& p);
void CombineRows(const CombineRowsParams& p);
// Of one rank; all ranks plan, then all send, then all receive. Flags are not used.
void DispatchPlan(const DispatchPlanParams& p);
void ExchangeRows(const ExchangeRowsParams& p);
void ExchangeBack(const ExchangeBackParams& p);
// `call` with host pointers; its `gemm` is not used.
void GroupedGemm(const GroupedGemmShape& shape, const GroupedGemmCall& call,
                 const int32_t* offset_L1, int64_t max_rows);
void CrossEntropyInPlace(const CrossEntropyParams& p);
void SortTokens(const SortTokensParams& p);
void EmbeddingGradient(const EmbeddingGradientParams& p);
void SumOfSquares(const SumOfSquaresParams& p);
void AdamwExact(const AdamwParams& p);
void AdamwCompact(const AdamwParams& p);

}  // namespace switchyard::kernels::reference
