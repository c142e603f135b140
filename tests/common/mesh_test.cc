#include "common/mesh.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(MeshTest, EveryExpertIsOwnedOnceInEveryEpGroup) {
  for (int world : {1, 2, 4, 8}) {
    for (int ep : {1, 2, 4, 8}) {
      if (world % ep != 0) continue;
      const Mesh mesh = *Mesh::Create(world, ep, 16);
      for (int rank = 0; rank < world; ++rank) {
        std::vector<int> owners(16, 0);
        for (int member : mesh.EpGroup(rank)) {
          for (int i = 0; i < mesh.experts_per_rank(); ++i) ++owners[mesh.first_expert(member) + i];
        }
        EXPECT_EQ(owners, std::vector<int>(16, 1));
        for (int member : mesh.EdpGroup(rank)) {
          EXPECT_EQ(mesh.first_expert(member), mesh.first_expert(rank));
        }
      }
    }
  }
}

TEST(MeshTest, NamesTheFieldThatDoesNotDivide) {
  EXPECT_EQ(Mesh::Create(4, 3, 16).status().message(), "expert_parallel (3) must divide ranks (4)");
  EXPECT_EQ(Mesh::Create(6, 6, 16).status().message(),
            "expert_parallel (6) must divide the model's number of experts (16)");
  EXPECT_EQ(Mesh::Create(0, 1, 16).status().message(), "ranks (0) must be at least 1");
}

}  // namespace
}  // namespace switchyard
